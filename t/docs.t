#!/usr/bin/perl

# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

# The documents against the tables of the module, and the folders of src/
# against the direction in which they may include each other.

use strict;
use warnings;

use File::Basename qw( basename dirname );
use Test::More;

chdir dirname(__FILE__) . '/..' or die "chdir: $!";

# layer => the layers whose headers it may include, and nginx's headers

my %LAYERS = (
    core => { ours => [qw( core )], nginx => qr{ (?!) }x },
    shm => { ours => [qw( core shm )],
             nginx => qr{ ^ngx_(?:config|core|event)\.h$ }x },
    redis => { ours => [qw( core redis )],
               nginx => qr{ ^ngx_(?:config|core|sha1|event(?:_connect)?)\.h$
                          }x },
    http => { ours => [qw( core shm redis http )], nginx => qr{ ^ngx_ }x },
);


# tables(text): the names in nginx's command and variable tables

sub tables {
    my ($text) = @_;
    my (%directives, %variables);

    while ($text =~ /ngx_string\("(llm_\w+)"\),\s*(NGX_HTTP_\w*CONF)?/g) {
        if (defined $2) {
            $directives{$1} = 1;

        } else {
            $variables{$1} = 1;
        }
    }

    return (\%directives, \%variables);
}


# readme_faults(README, directives, variables)

sub readme_faults {
    my ($text, $directives, $variables) = @_;
    my (%heading, %named, @faults);

    %heading = map { $_ => 1 } $text =~ /^### (llm_\w+)[ ]*$/mg;
    %named = map { $_ => 1 } $text =~ /\$(llm_\w+)/g;

    for my $name (sort keys %$directives) {
        push @faults, "README.md has no '### $name'" if !$heading{$name};
    }

    for my $name (sort keys %heading) {
        push @faults, "README.md describes $name, which does not exist"
            if !$directives->{$name};
    }

    for my $name (sort keys %$variables) {
        push @faults, "README.md does not name \$$name" if !$named{$name};
    }

    for my $name (sort keys %named) {
        push @faults, "README.md names \$$name, which does not exist"
            if !$variables->{$name};
    }

    return @faults;
}


# conf_faults(conf.example, directives, variables)

sub conf_faults {
    my ($text, $directives, $variables) = @_;
    my (%named, %used, @faults);

    $text =~ s/^\s*#.*$//mg;

    %used = map { $_ => 1 } $text =~ /^\s*(llm_\w+)[\s;]/mg;
    %named = map { $_ => 1 } $text =~ /\$(llm_\w+)/g;

    for my $name (sort keys %$directives) {
        push @faults, "conf.example does not use $name" if !$used{$name};
    }

    for my $name (sort keys %used) {
        push @faults, "conf.example uses $name, which does not exist"
            if !$directives->{$name};
    }

    for my $name (sort keys %named) {
        push @faults, "conf.example names \$$name, which does not exist"
            if !$variables->{$name};
    }

    return @faults;
}


# include_faults(path, text, home): home is header => its layer

sub include_faults {
    my ($path, $text, $home) = @_;
    my (@faults, $layer);

    ($layer) = $path =~ m{^src/(\w+)/} or return;

    if (!$LAYERS{$layer}) {
        return ("$path: src/$layer is no layer of the module");
    }

    for my $header ($text =~ /^\s*#\s*include\s*[<"]([^>"]+)[>"]/mg) {
        my $at = $home->{$header};

        if (defined $at) {
            push @faults, "$path: $layer must not include $header of $at"
                if !grep { $_ eq $at } @{$LAYERS{$layer}->{ours}};

        } elsif ($header =~ m{(?:^|/)ngx_}) {
            push @faults, "$path: $layer must not include $header"
                if $header !~ $LAYERS{$layer}->{nginx};

        } elsif ($header =~ m{^hiredis/} && $layer ne 'redis') {
            push @faults, "$path: only src/redis includes $header";
        }
    }

    return @faults;
}


# source_faults(config, files): its sources are those that there are

sub source_faults {
    my ($text, @files) = @_;
    my (%named, @faults);

    %named = map { $_ => 1 } $text =~ m{\$ngx_addon_dir/(src/\w+/\w+\.[ch])}g;

    for my $path (@files) {
        push @faults, "config does not name $path" if !delete $named{$path};
    }

    push @faults, map { "config names $_, which does not exist" }
                      sort keys %named;

    return @faults;
}


sub slurp {
    my ($path) = @_;

    open my $in, '<', $path or return '';
    local $/;
    return scalar(<$in>) // '';
}


sub none_of {
    my ($promise, @faults) = @_;

    ok(!@faults, $promise) or diag(join "\n", @faults);
}


# the checks are shown to fail, before they are trusted

my ($d, $v) = tables('{ ngx_string("llm_a"),' . "\n  NGX_HTTP_MAIN_CONF|1,"
                     . ' } { ngx_string("llm_b"), NULL, f, 0 }');

is_deeply([ keys %$d, keys %$v ], [ 'llm_a', 'llm_b' ],
          'a directive and a variable are told apart');

is_deeply([ readme_faults("### llm_c\n\$llm_d", $d, $v) ],
          [ "README.md has no '### llm_a'",
            'README.md describes llm_c, which does not exist',
            'README.md does not name $llm_b',
            'README.md names $llm_d, which does not exist' ],
          'faults of a README are found');

is_deeply([ conf_faults("# llm_a on;\nllm_c on;\nx '\$llm_d';", $d, $v) ],
          [ 'conf.example does not use llm_a',
            'conf.example uses llm_c, which does not exist',
            'conf.example names $llm_d, which does not exist' ],
          'faults of a conf.example are found');

is_deeply([ readme_faults("### llm_a\n`\$llm_b`", $d, $v),
            conf_faults("    llm_a on;\n", $d, $v) ], [],
          'good documents have no faults');

my @faults;
my %home = ('c.h' => 'core', 's.h' => 'shm', 'r.h' => 'redis',
            'h.h' => 'http');

for my $example ([ 'src/core/a.c', '<ngx_config.h>' ],
                 [ 'src/core/a.c', '"s.h"' ],
                 [ 'src/core/a.c', '"src/http/ngx_http_llm.h"' ],
                 [ 'src/shm/a.c', '<ngx_http.h>' ],
                 [ 'src/shm/a.c', '"r.h"' ],
                 [ 'src/redis/a.c', '"h.h"' ],
                 [ 'src/http/a.c', '<hiredis/async.h>' ],
                 [ 'src/new/a.c', '"c.h"' ])
{
    my ($path, $header) = @$example;

    @faults = include_faults($path, "#include $header\n", \%home);
    is(scalar @faults, 1, "$path with $header is found");
}

is_deeply([ include_faults('src/redis/a.c', "#include <ngx_event.h>\n"
                           . "#include <hiredis/async.h>\n"
                           . "#include \"c.h\"\n", \%home) ], [],
          'good includes have no faults');


is_deeply([ source_faults('$ngx_addon_dir/src/core/a.c',
                          'src/core/b.c') ],
          [ 'config does not name src/core/b.c',
            'config names src/core/a.c, which does not exist' ],
          'faults of a config are found');


# the real ones

my (%directives, %variables);

for my $path ('ngx_http_llm_stream_module.c', glob 'src/http/*.c') {
    my ($directives, $variables) = tables(slurp($path));

    %directives = (%directives, %$directives);
    %variables = (%variables, %$variables);
}

cmp_ok(scalar keys %directives, '>', 0, 'the module has directives');
cmp_ok(scalar keys %variables, '>', 0, 'the module has variables');

none_of('README.md has every directive and variable, and no other',
        readme_faults(slurp('README.md'), \%directives, \%variables));
none_of('conf.example has every directive, and no other',
        conf_faults(slurp('conf.example'), \%directives, \%variables));

my @files = glob 'src/*/*.[ch]';

%home = map { basename($_) => basename(dirname($_)) } @files;

none_of('includes point downward: http, redis, shm, core',
        map { include_faults($_, slurp($_), \%home) } @files);

none_of('config names every source, and no other',
        source_faults(slurp('config'), @files));

done_testing();
