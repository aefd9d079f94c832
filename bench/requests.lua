-- wrk: sends the requests listed in a file (a path and a Cookie header a line) in turn; reports as one line of JSON.
local requests, at = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        local path, cookie = line:match("^(%S+) (.+)$")
        requests[#requests + 1] = wrk.format("GET", path, { Cookie = cookie })
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency)
    local failed = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"seconds":%.6f,"p99_us":%d,"failed":%d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(99),
        failed.connect + failed.read + failed.write + failed.status + failed.timeout
    ))
end
