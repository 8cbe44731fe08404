"""The Kubernetes hand: the same documents as custom resources, where a cluster runs KubeArmor.

It declares, keeps what it declared in place, and says how far that got. The API server acknowledges storage and
nothing more, so *accepted* is the most that is ever known here, and it never counts for an admission.
What must not live here: devices, verdicts, the path gate, deciding, what a document says.
"""

from gateway.enforce.kubernetes.access import Access, AccessRefused, from_cluster, from_kubeconfig
from gateway.enforce.kubernetes.driver import KubernetesAdvisory
from gateway.enforce.kubernetes.settings import KubernetesSettings

__all__ = [
    "Access",
    "AccessRefused",
    "KubernetesAdvisory",
    "KubernetesSettings",
    "from_cluster",
    "from_kubeconfig",
]
