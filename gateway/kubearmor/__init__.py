"""KubeArmor's documents, pure: typed policies, validation, rendering; ``pb`` holds generated messages only.

Facts are from the public project kubearmor/KubeArmor at commit 510cee31 unless a docstring says otherwise.
"interface 4.3" and the like stand for a group of them, with its files: the list is in ``docs/kubearmor.md``.
"""
