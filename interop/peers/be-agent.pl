# SPDX-License-Identifier: AGPL-3.0-only
# An agent: answers each request with HTTP/1.0 and closes. Prints its port. Runs
# that nobody waits for have ended when they are asked for twice.
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

my %runs;
while (1) {
    my $peer = $server->accept or next;
    my $line = <$peer> // next;
    my $length = 0;
    while (my $field = <$peer>) {
        last if $field =~ /^\r?\n$/;
        $length = $1 if $field =~ /^content-length:\s*(\d+)/i;
    }
    my $body = '';
    read($peer, $body, $length) if $length;
    my $asked = $length ? decode_json($body) : {};
    my %answer = (reqid => $asked->{reqid}, later => { unknown => JSON::PP::true });
    my $status = '200 OK';
    if ($line =~ m{^POST /ping }) {
        %answer = (%answer, status => 'ok', host => 'perl', version => '0.8.4',
            expiry => 'Jun  7 16:28:00 2027 GMT');
    }
    elsif ($line =~ m{^GET /result/([\w-]+) }) {
        my $run = $runs{$1};
        ($status, %answer) = ('404 Not Found', status => 'unknown', reqid => $1)
            if !$run;
        %answer = %{$run} if $run;
        $run->{status} = 'done' if $run;
        @{$run}{qw(exit stdout stderr finished)} = (4, "late\n", '', '2026-11-21T08:00:01Z')
            if $run;
    }
    elsif ($line !~ m{^POST /run }) {
        # An agent of the older line cannot be renewed, nor told of a serial.
        ($status, %answer) = ('404 Not Found', error => 'not found');
    }
    elsif ($asked->{async}) {
        my %said = (script => $asked->{script}, reqid => $asked->{reqid});
        if (grep { $_->{script} eq $said{script} && $_->{status} eq 'running' } values %runs) {
            $status = '409 Conflict';
            %answer = (%said, status => 'busy', error => 'script already running');
        }
        else {
            $runs{ $said{reqid} } = { %said, status => 'running', owner => 'ops',
                started => '2026-11-21T08:00:00Z' };
            $status = '202 Accepted';
            %answer = (%said, status => 'accepted');
        }
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
