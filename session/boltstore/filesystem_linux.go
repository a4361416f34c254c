package boltstore

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// What statfs says of file systems (statfs(2), linux/magic.h, and the sources of
// those that are not the kernel's).
const (
	fuseMagic  = 0x65735546
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

var networkMagic = map[uint32]string{
	0x00006969: "NFS",
	0x0000517b: "SMB",
	0xff534d42: "SMB (CIFS)",
	0xfe534d42: "SMB",
	0x01021997: "9P",
	0x00c36400: "Ceph",
	0x5346414f: "AFS",
	0x6b414653: "AFS",
	0x73757245: "Coda",
	0x0000564c: "NCP",
	0x0bd00bd0: "Lustre",
	0x47504653: "GPFS",
	0x19830326: "BeeGFS",
	0x20030528: "OrangeFS",
	0x786f4256: "a shared folder of VirtualBox",
	0xbacbacbc: "a shared folder of VMware",
}

// networkFUSE are programs behind FUSE whose files are elsewhere.
var networkFUSE = []string{
	"sshfs", "glusterfs", "ceph", "s3fs", "goofys", "mountpoint-s3", "rclone", "gcsfuse", "blobfuse", "davfs", "curlftpfs",
	"juicefs", "moosefs", "mfs", "lizardfs", "saunafs", "seaweedfs", "weed", "afp", "smbnetfs", "lustre", "beegfs", "vmhgfs",
}

// look asks the kernel what a directory is on.
func look(dir string) (fileSystem, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fileSystem{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	f := named(uint32(st.Type), func() string { return mounted(dir) })
	f.free = int64(st.Bavail) * int64(st.Bsize)
	return f, nil
}

// named tells what a magic number stands for, and asks for the name of what is
// mounted if that matters.
func named(magic uint32, mounted func() string) fileSystem {
	if kind := networkMagic[magic]; kind != "" {
		return fileSystem{kind: kind, trait: network}
	}
	switch magic {
	case tmpfsMagic, ramfsMagic:
		return fileSystem{kind: "tmpfs", trait: volatile}
	case fuseMagic:
		kind := mounted()
		program, _ := strings.CutPrefix(kind, "fuse.")
		switch {
		case kind == "virtiofs": // the host's own disk
			return fileSystem{kind: kind}
		case isNetworkFUSE(program):
			return fileSystem{kind: kind, trait: network}
		}
		return fileSystem{kind: kind, trait: userspace}
	}
	return fileSystem{}
}

func isNetworkFUSE(program string) bool {
	for _, name := range networkFUSE {
		if strings.HasPrefix(program, name) {
			return true
		}
	}
	return false
}

// mounted returns the type of what a directory is on, as mount(8) shows it:
// "fuse.sshfs". Unknown: "FUSE".
func mounted(dir string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "FUSE"
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "FUSE"
	}
	return mountType(string(table), uint64(st.Dev))
}

// mountType looks a device up in a mountinfo table (proc_pid_mountinfo(5)): the
// third field is its number, the first after the dash its type.
func mountType(table string, dev uint64) string {
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	number := fmt.Sprintf("%d:%d", major, uint32(minor))
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) > 2 && fields[2] == number && len(kind) > 0 {
			return kind[0]
		}
	}
	return "FUSE"
}
