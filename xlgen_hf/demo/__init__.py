"""A page in the browser: texts and files in, labels with what speaks for them out, corrections kept.

`app` puts the page before the models, limits and batches of `serving`. `page` lays out the parts and says what each
does; `asking` puts a request to the models, `rendering` makes HTML of what they answer, `documents` reads files.
"""
