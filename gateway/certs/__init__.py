"""Who is who on the site's own links: a small certificate authority, identities, and material that is reloaded.

What lives here: making certificates, requests and the revocation list; reading an identity out of a certificate;
the folder they are kept in; what TLS servers and clients of ours are built from. What must not: connections,
devices, verdicts, and any opinion about what an identity may do.
"""

from gateway.certs.authority import Authority, make_authority, make_request
from gateway.certs.folder import Folder
from gateway.certs.identity import Identity, IdentityRefused, Role, identify, prove, read_revoked, verify_proof
from gateway.certs.material import Material, MaterialFiles, TlsMaterial
from gateway.certs.served import Mark, Served, ServedFiles, ServedTls, mark_of

__all__ = [
    "Authority",
    "Folder",
    "Identity",
    "IdentityRefused",
    "Mark",
    "Material",
    "MaterialFiles",
    "Role",
    "Served",
    "ServedFiles",
    "ServedTls",
    "TlsMaterial",
    "identify",
    "make_authority",
    "make_request",
    "mark_of",
    "prove",
    "read_revoked",
    "verify_proof",
]
