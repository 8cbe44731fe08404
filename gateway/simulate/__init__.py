"""The surrogate site: verifier, devices and app server that speak SEDIMENT's wire format.

Used by ``make run``, by compose/ and by the tests' fakes. It knows the protocol library and, to prepare the files
of a site with an agent, the site's authority; nothing else of the product.
"""
