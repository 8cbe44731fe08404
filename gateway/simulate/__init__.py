"""The surrogate site: verifier, devices and app server that speak SEDIMENT's wire format.

Used by ``make run`` and by the tests' fakes. It knows the protocol library and nothing else of the product.
"""
