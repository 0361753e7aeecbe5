# SPDX-License-Identifier: AGPL-3.0-only
# An agent: answers each request with HTTP/1.0 and closes. Prints its port.
# Usage: be-agent.pl CERT KEY CA
use strict;
use warnings;
use IO::Socket::SSL;
use JSON::PP;

$| = 1;
$SIG{PIPE} = 'IGNORE';
my ($cert, $key, $ca) = @ARGV;
my $server = IO::Socket::SSL->new(
    LocalAddr       => '127.0.0.1',
    LocalPort       => 0,
    Listen          => 5,
    SSL_cert_file   => $cert,
    SSL_key_file    => $key,
    SSL_ca_file     => $ca,
    SSL_verify_mode => SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
) or die "listen: $!, $SSL_ERROR";
print $server->sockport, "\n";

while (1) {
    my $peer = $server->accept or next;
    my $line = <$peer> // next;
    my $length = 0;
    while (my $field = <$peer>) {
        last if $field =~ /^\r?\n$/;
        $length = $1 if $field =~ /^content-length:\s*(\d+)/i;
    }
    read($peer, my $body, $length);
    my $asked = decode_json($body);
    my %answer = (reqid => $asked->{reqid}, later => { unknown => JSON::PP::true });
    my $status = '200 OK';
    if ($line =~ m{^POST /ping }) {
        %answer = (%answer, status => 'ok', host => 'perl', version => '0.8.4',
            expiry => 'Jun  7 16:28:00 2027 GMT');
    }
    elsif ($line !~ m{^POST /run }) {
        # An agent of the older line cannot be renewed, nor told of a serial.
        ($status, %answer) = ('404 Not Found', error => 'not found');
    }
    else {
        %answer = (%answer, script => $asked->{script}, exit => 4,
            stdout => join('|', @{ $asked->{args} }) . "\n", stderr => '');
    }
    my $text = encode_json(\%answer);
    print $peer "HTTP/1.0 $status\r\ncontent-TYPE: application/json\r\n",
        'CONTENT-LENGTH: ', length $text, "\r\n\r\n", $text;
    $peer->close;
}
