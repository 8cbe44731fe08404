"""KubeArmor's documents, pure: typed policies, validation, rendering; ``pb`` holds generated messages only.

Facts are from the public project kubearmor/KubeArmor at commit 510cee31 unless a docstring says otherwise.
"""
