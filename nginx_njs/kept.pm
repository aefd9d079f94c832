# What the gate has let in, kept for some seconds in each worker's own memory: a browser that asks again and again
# enters neither njs nor a second request. Embedded Perl keeps its variables between requests, njs does not.

package kept;

use strict;
use warnings;

# Of the keys and values of one generation; there are two of them. Past it the older one goes.
our $BYTES_MAX = 8 * 1024 * 1024;
# After this nothing of a generation is good any more: the gate's yes is for 5 s at most.
our $GENERATION_S = 6;

my ($young, $old, $bytes, $begun) = ({}, {}, 0, 0);

# What was kept under this key, if it is good in this second; '' otherwise. What was kept in a second that is yet to
# come is not good either: a clock that was set back makes nothing last longer.
sub look {
    my ($key, $now) = @_;
    my $entry = $young->{$key} || $old->{$key} or return '';
    return $now >= $entry->[0] && $now <= $entry->[1] ? $entry->[2] : '';
}

# until: the last second at which it is good.
sub put {
    my ($key, $text, $until, $now) = @_;
    my $size = length($key) + length($text);
    if ($bytes + $size > $BYTES_MAX || $now - $begun > $GENERATION_S || $now < $begun) {
        ($young, $old, $bytes, $begun) = ({}, $young, 0, $now);
    }
    $young->{$key} = [$now, $until, $text];
    $bytes += $size;
    return;
}

# perl_set: what the gate said of this key: upstream, session, visit, the pod's Cookie header. '': ask it.
sub said {
    return look($_[0]->variable('gate_key'), time);
}

# perl_set: the pod's Cookie header, as the gate has just given it; kept for the next request on the way.
sub cookie {
    my $r = shift;
    my $cookie = $r->variable('pod_cookie');
    my ($until) = $r->variable('gate_until') =~ /^@([0-9]+)$/;
    if (defined $until) {
        my @said = map { $r->variable($_) } 'pod_upstream', 'pod_session', 'gate_visit';
        my $text = join ' ', @said, $cookie;
        put($r->variable('gate_key'), $text, $until, time);
    }
    return $cookie;
}

1;
