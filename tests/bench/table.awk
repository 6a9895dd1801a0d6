# SPDX-License-Identifier: Apache-2.0
# Medians of the figures and of the ratios of each repetition, as a Markdown table.
# Reads rows.txt, then the lines that peers.sh recorded: repetition, run, figures. A repetition in which others
# used more than `busy` cores counts only where there is no quieter one.

function trim(s) {
    gsub(/^ +| +$/, "", s)
    return s
}

# Sorts v[1..n].
function sort(v, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = v[i]
        for (j = i - 1; j > 0 && v[j] > x; j--) {
            v[j + 1] = v[j]
        }
        v[j + 1] = x
    }
}

function median(v, n) {
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}

function show(x, figure) {
    if (figure ~ /_s$/ && figure !~ /ms_s$/) {
        return x >= 1e6 ? sprintf("%.2f M/s", x / 1e6) : sprintf("%.1f k/s", x / 1e3)
    }
    if (figure ~ /_us$/) {
        return x < 10 ? sprintf("%.3f µs", x) : sprintf("%.1f µs", x)
    }
    if (figure ~ /_kib$/) {
        return x >= 1024 ? sprintf("%.1f MiB", x / 1024) : sprintf("%.1f KiB", x)
    }
    return figure == "connect_ms" ? sprintf("%.0f ms", x) : sprintf("%.2f ms/s", x)
}

function bound(x, sense) {
    return x == "-" ? "" : (sense ~ /least$/ ? "≥ " : "≤ ") x
}

function verdict(x, sense, must, stretch,    ours) {
    if (must == "-") {
        return "-"
    }
    ours = sense ~ /least$/ ? x : -x
    if (stretch != "-" && ours >= (sense ~ /least$/ ? stretch + 0 : -stretch)) {
        return "stretch"
    }
    return ours >= (sense ~ /least$/ ? must + 0 : -must) ? "must" : "**short**"
}

function judge(row,    rep, n, kept, pass, ours, peer, x, a, b, c) {
    for (pass = 0; pass < 2 && n == 0; pass++) {
        for (rep = 1; rep <= reps; rep++) {
            ours = rep SUBSEP our_run[row]
            peer = rep SUBSEP peer_run[row]
            if (!((ours, figure[row]) in value) || !((peer, figure[row]) in value)) {
                continue
            }
            if (pass == 0 && (value[ours, "foreign"] > busy || value[peer, "foreign"] > busy)) {
                continue
            }
            n++
            a[n] = value[ours, figure[row]]
            b[n] = value[peer, figure[row]]
            c[n] = sense[row] ~ /^value/ ? a[n] : sense[row] == "above" ? a[n] - b[n] : b[n] > 0 ? a[n] / b[n] : 0
            kept += value[ours, "lost"] + value[peer, "lost"]
        }
    }
    if (n == 0) {
        printf "| %s | %s | | | | | | not measured |\n", row, what[row]
        return
    }
    sort(a, n)
    sort(b, n)
    sort(c, n)
    x = median(c, n)
    printf "| %s | %s | %s | %s | ", row, what[row], show(median(a, n), figure[row]), show(median(b, n), figure[row])
    if (sense[row] ~ /^value/) {
        printf "-"
    } else if (sense[row] == "above") {
        printf "%+.0f (%+.0f to %+.0f)", x, c[1], c[n]
    } else {
        printf "%.2f (%.2f-%.2f)", x, c[1], c[n]
    }
    printf " | %s | %s | %s%s |\n", bound(must[row], sense[row]), bound(stretch[row], sense[row]),
        verdict(x, sense[row], must[row], stretch[row]), (kept > 0 ? ", **lost events**" : "")
}

BEGIN {
    columns = split("published_s received_s broker_us publisher_us subscriber_us p50_us p99_us rss_kib client_kib connect_ms idle_ms_s foreign lost", column, " ")
}

FNR == NR && !/^(#|$)/ {
    split($0, field, "|")
    row = trim(field[1])
    order[++rows] = row
    what[row] = trim(field[2])
    figure[row] = trim(field[3])
    sense[row] = trim(field[4])
    must[row] = trim(field[5])
    stretch[row] = trim(field[6])
    our_run[row] = trim(field[7])
    peer_run[row] = trim(field[8])
}

FNR != NR {
    split($0, field, "\t")
    reps = field[1] > reps ? field[1] : reps
    for (i = 1; i <= columns; i++) {
        value[field[1], field[2], column[i]] = field[i + 2] + 0
    }
}

END {
    print "| row | what | busbar | peer | ratio (median, min-max) | must | stretch | verdict |"
    print "|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= rows; i++) {
        if (wanted == "" || index(wanted, " " order[i] " ") > 0) {
            judge(order[i])
        }
    }
}
