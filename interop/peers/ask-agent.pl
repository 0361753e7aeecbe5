# SPDX-License-Identifier: AGPL-3.0-only
# A dispatcher: sends one request to an agent and prints the answer.
# Usage: ask-agent.pl CERT KEY CA METHOD URL [BODY]
use strict;
use warnings;
use HTTP::Request;
use LWP::UserAgent;

my ($cert, $key, $ca, $method, $url, $body) = @ARGV;
my $client = LWP::UserAgent->new(
    timeout  => 10,
    ssl_opts => {
        SSL_cert_file   => $cert,
        SSL_key_file    => $key,
        SSL_ca_file     => $ca,
        verify_hostname => 0,
        SSL_verify_mode => 1,
    },
);
my $request = HTTP::Request->new($method, $url, ['Content-Type' => 'application/json'], $body);
my $response = $client->request($request);
print $response->protocol // 'none', ' ', $response->code, "\n", $response->content, "\n";
