"""Everything that speaks HTTP, but for model calls.

    operation.py      what a route takes and answers, checked before it runs
    http.py           services, callers, JSON bodies, errors, headers
    bad_input.py      what is wrong with an input, in our words
    usage_query.py    what a query may ask for: days, times, filters
    next_path.py      where a browser may be sent after a log-in
    rules.py          paths that requests are matched with
    cookies.py        cookies, of pages and of log-ins elsewhere
    words.py          the pages' words in other languages
    api/              the JSON API
    openapi/          its document, and two readers of it
    pages/            the pages that people see
    templates/        their HTML
    static/           their styles, scripts and pictures
    translations/     their words

A request -> operation.py, or pages/views.py -> a view -> its verb, shared by api/ and pages/ -> the nouns below.
"""
