# SPDX-License-Identifier: AGPL-3.0-only
# An agent that wants to be paired: prints the body of each of the two answers.
# Usage: ask-pairing.pl PORT HOSTNAME CSR-FILE NONCE
use strict;
use warnings;
use IO::Socket::SSL;
use JSON::PP;

$| = 1;
my ($port, $hostname, $file, $nonce) = @ARGV;
open my $source, '<', $file or die "$file: $!";
my $csr = do { local $/; <$source> };
my $socket = IO::Socket::SSL->new(
    PeerAddr        => "127.0.0.1:$port",
    SSL_verify_mode => SSL_VERIFY_NONE,
) or die "connect: $!, $SSL_ERROR";
my $body = encode_json({ hostname => $hostname, csr => $csr, nonce => $nonce });
print $socket "POST /pair HTTP/1.0\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
for (1, 2) {
    my $status = <$socket> // die "no answer\n";
    die "not the old protocol: $status" unless $status =~ m{^HTTP/1\.0 200 };
    my $length = 0;
    while (my $field = <$socket>) {
        last if $field =~ /^\r?\n$/;
        $length = $1 if $field =~ /^content-length:\s*(\d+)/i;
    }
    read($socket, my $answer, $length);
    print "$answer\n";
}
print defined <$socket> ? "more\n" : "closed\n";
