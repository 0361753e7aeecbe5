# SPDX-License-Identifier: AGPL-3.0-only
# A pairing listener that approves: two HTTP/1.0 answers on one connection, the
# certificate signed by the openssl program. Prints its port.
# Usage: be-listener.pl CERT KEY CA CA-KEY SERIAL DIRECTORY
use strict;
use warnings;
use IO::Socket::SSL;
use JSON::PP;

$| = 1;
$SIG{PIPE} = 'IGNORE';
my ($cert, $key, $ca, $ca_key, $serial, $directory) = @ARGV;
my $server = IO::Socket::SSL->new(
    LocalAddr     => '127.0.0.1',
    LocalPort     => 0,
    Listen        => 5,
    SSL_cert_file => $cert,
    SSL_key_file  => $key,
) or die "listen: $!, $SSL_ERROR";
print $server->sockport, "\n";

my $peer = $server->accept or die "accept: $SSL_ERROR";
my $length = 0;
while (my $field = <$peer>) {
    last if $field =~ /^\r?\n$/;
    $length = $1 if $field =~ /^content-length:\s*(\d+)/i;
}
read($peer, my $body, $length);
my $asked = decode_json($body);
answer({ status => 'pending', reqid => 'feedfacefeedface' });
spill("$directory/csr", $asked->{csr});
system('openssl', 'x509', '-req', '-in', "$directory/csr", '-CA', $ca, '-CAkey', $ca_key,
    '-CAserial', "$directory/serial", '-CAcreateserial', '-days', '825', '-sha256',
    '-out', "$directory/crt") == 0 or die 'openssl';
answer({
    status => 'approved', cert => slurp("$directory/crt"), ca => slurp($ca),
    nonce => $asked->{nonce}, dispatcher_serial => $serial,
});
$peer->close;

sub answer {
    my $text = encode_json(shift);
    print $peer "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: ",
        length $text, "\r\n\r\n", $text;
}

sub slurp {
    open my $file, '<', shift or die $!;
    local $/;
    return scalar <$file>;
}

sub spill {
    my ($path, $text) = @_;
    open my $file, '>', $path or die $!;
    print $file $text;
    close $file or die $!;
}
