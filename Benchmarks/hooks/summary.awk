# Samples of run.sh (lines of JSON) to a table in Markdown, and to lines of JSON in the file `json`.
# Each sample is compared with the plain proxy of its own round; medians and quartiles are over the rounds.

function field(name,    rest) {
    rest = substr($0, index($0, "\"" name "\":") + length(name) + 3)
    sub(/^"/, "", rest)
    sub(/[",}].*/, "", rest)
    return rest
}

# The q quantile of the n values of a, by linear interpolation.
function quantile(a, n, q,    sorted, i, j, x, at) {
    for (i = 1; i <= n; i++) {
        x = a[i]
        for (j = i - 1; j >= 1 && sorted[j] > x; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = x
    }
    at = 1 + (n - 1) * q
    i = int(at)
    return i == n ? sorted[n] : sorted[i] + (at - i) * (sorted[i + 1] - sorted[i])
}

field("kind") == "sample" {
    face = field("proxy") " " field("mode") "|" field("connections")
    variant = field("variant")
    round = field("round")
    if (!(face in seen)) { seen[face] = 1; faces[++faceCount] = face }
    if (round > rounds) rounds = round
    cost[face, variant, round] = field("cpu_ns") / field("requests") / 1000
    share[face, variant, round] = field("of_it_fpxd_ns") / field("requests") / 1000
}

END {
    names["plain"] = "without"
    names["again"] = "without, again"
    names["nginx", "limiter"] = "`limit_conn`"
    names["haproxy", "limiter"] = "stick table, `conn_cur`"
    names["fpx"] = "fpx"
    names["fpx-full"] = "fpx, cap full"
    count = split("plain again limiter fpx fpx-full", variants, " ")
    print "| proxy | connections | limit | CPU per request, us | of it fpxd | ratio | quartiles | more than without, us |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for (f = 1; f <= faceCount; f++) {
        face = faces[f]
        split(face, part, "|")
        split(part[1], word, " ")
        for (v = 1; v <= count; v++) {
            variant = variants[v]
            for (r = 1; r <= rounds; r++) {
                costs[r] = cost[face, variant, r]
                ratios[r] = costs[r] / cost[face, "plain", r]
                agents[r] = share[face, variant, r]
                more[r] = costs[r] - cost[face, "plain", r]
            }
            name = variant == "limiter" ? names[word[1], variant] : names[variant]
            middle = quantile(ratios, rounds, 0.5)
            low = quantile(ratios, rounds, 0.25)
            high = quantile(ratios, rounds, 0.75)
            micro = quantile(costs, rounds, 0.5)
            extra = quantile(more, rounds, 0.5)
            agent = quantile(agents, rounds, 0.5)
            printf "| %s | %s | %s | %.1f | %s | ", part[1], part[2], name, micro, (agent > 0 ? sprintf("%.1f", agent) : "")
            if (variant == "plain") print "1 | | |"
            else printf "%.2f | %.2f to %.2f | %+.1f |\n", middle, low, high, extra
            printf "{\"kind\":\"summary\",\"proxy\":\"%s\",\"mode\":\"%s\",\"connections\":\"%s\",\"variant\":\"%s\",", \
                word[1], word[2], part[2], variant > json
            printf "\"cpu_us\":%.3f,\"of_it_fpxd_us\":%.3f,", micro, agent > json
            printf "\"ratio\":%.4f,\"ratio_q1\":%.4f,\"ratio_q3\":%.4f,\"more_us\":%.3f}\n", \
                middle, low, high, extra > json
        }
    }
}
