"""The closed lists and numbers of KubeArmor's published schema and engine.

Source: ``deployments/CRD`` and ``KubeArmor/enforcer/bpflsm`` of kubearmor/KubeArmor at commit 510cee31.
What must not live here: rules.
"""

from __future__ import annotations

GROUP = "security.kubearmor.com"
API_VERSION = f"{GROUP}/v1"

ACTIONS = ("Allow", "Audit", "Block")
SEVERITIES = range(1, 11)

#: Entries of the kernel table of one container, or of the host, for the rules of all its policies (interface 5).
TABLE_ENTRIES = 256

#: Bytes of a path that the engine keeps; a look-up buffer holds 200 with the final zero.
MAX_PATH = 199
#: Bytes of a path in which the kernel side looks for '/'.
MAX_DIRECTORY = 64

MAX_ARGUMENTS = 20
#: Bytes of an allowed argument that are compared (interface 5).
MAX_ARGUMENT = 103

#: Characters of a policy name that leave room for the rest of an nft log prefix of 127 (interface 4.3).
MAX_NETWORK_NAME = 108
#: Characters of a name in a cluster (RFC 1123 subdomain).
MAX_NAME = 253

#: Characters of a Linux interface name, the kernel's IFNAMSIZ without its final zero.
MAX_INTERFACE = 15

PORT_PROTOCOLS = ("tcp", "udp", "sctp")
#: Names that the daemon turns into numbers; any other goes to nft as it stands (interface 4.2).
PORT_NAMES = {"ssh": 22, "http": 80, "https": 443, "dns": 53}

#: ``network.matchProtocols``: IP protocols, and socket types.
SOCKET_TYPES = ("stream", "dgram", "raw", "rdm", "seqpacket", "dccp", "packet")
PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6", "sctp", *SOCKET_TYPES, "all")

PRESETS = ("anonymousMapExec", "filelessExec", "protectEnv", "exec", "protectProc")
PRESET_ACTIONS = ("Audit", "Block")

LEVELS = ("pod", "policy", "Pod", "Policy")

NODE_LABEL = "kubearmor.io/hostname"
NODE_PATTERN_LABEL = "kubearmor.io/hostnamereg"
CONTAINER_LABEL = "kubearmor.io/container.name"

#: What a domain of ``matchDNSQueries`` is stored with besides itself; containers add one for their namespace.
DNS_SUFFIXES = ("", ".cluster.local", ".svc.cluster.local", ".domain.name")

_CAPABILITIES = """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
    sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap
    mac_override mac_admin
"""
CAPABILITIES = tuple(_CAPABILITIES.split())

_SYSCALLS = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore
    madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket
    connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair
    setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget
    msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename
    mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday
    getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
    getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid
    getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
    sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority
    sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt
    pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon
    swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
    get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid
    readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area
    io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie epoll_create
    epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall semtimedop
    fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
    clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind
    set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
    inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat
    linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list
    splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd
    fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2
    inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark
    prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv
    process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create
    kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
    pkey_alloc pkey_free statx io_pgetevents rseq
"""
#: The x86-64 system calls that the schema lists.
SYSCALLS = frozenset(_SYSCALLS.split())
