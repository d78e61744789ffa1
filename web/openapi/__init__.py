"""The OpenAPI document, drawn from what routes declare.

    document.py      the whole document; the names that schemas are published under
    model_calls.py   model calls, which no route declares
    sample.py        an example for a schema
    readers.py       the document over HTTP, with Swagger UI and Redoc

web/operation.py's declarations -> document.py, with model_calls.py and sample.py -> readers.py.
"""
