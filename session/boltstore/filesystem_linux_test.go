package boltstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/session"
)

func TestFileSystemsAreKnownByTheirNumbers(t *testing.T) {
	for _, row := range []struct {
		name    string
		magic   uint32
		mounted string
		want    trait
	}{
		{"ext4", 0xef53, "", ordinary},
		{"xfs", 0x58465342, "", ordinary},
		{"btrfs", 0x9123683e, "", ordinary},
		{"zfs", 0x2fc12fc1, "", ordinary},
		{"overlayfs", 0x794c7630, "", ordinary},
		{"tmpfs", 0x01021994, "", volatile},
		{"NFS", 0x6969, "", network},
		{"CIFS", 0xff534d42, "", network},
		{"SMB 2", 0xfe534d42, "", network},
		{"9p, of WSL and of virtual machines", 0x01021997, "", network},
		{"CephFS", 0x00c36400, "", network},
		{"AFS", 0x5346414f, "", network},
		{"Lustre", 0x0bd00bd0, "", network},
		{"sshfs", 0x65735546, "fuse.sshfs", network},
		{"GlusterFS", 0x65735546, "fuse.glusterfs", network},
		{"s3fs", 0x65735546, "fuse.s3fs", network},
		{"CephFS by FUSE", 0x65735546, "fuse.ceph-fuse", network},
		{"virtiofs, the host's own disk", 0x65735546, "virtiofs", ordinary},
		{"NTFS by FUSE", 0x65735546, "fuseblk", userspace},
		{"FUSE of a kind that nobody knows", 0x65735546, "FUSE", userspace},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := named(row.magic, func() string { return row.mounted }); got.trait != row.want {
				t.Errorf("%+v, want %d", got, row.want)
			}
		})
	}
}

func TestTheDirectoryOfATestIsOnALocalDisk(t *testing.T) {
	dir := t.TempDir()
	f, err := look(dir)
	if err != nil || f.trait == network || f.trait == userspace || f.free <= 0 {
		t.Errorf("look = %+v, %v, want a local disk with some room", f, err)
	}
	if got := mounted(dir); got == "FUSE" || strings.Contains(got, " ") {
		t.Errorf("mounted = %q, want a type", got)
	}
	if _, err := look(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("look = %v, want that it is not there", err)
	}
}

func TestMountTypesAreFoundByDevice(t *testing.T) {
	const table = `22 28 0:21 / /proc rw,nosuid - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
90 28 0:45 / /mnt/a\040b rw,nosuid,nodev shared:50 master:3 - fuse.sshfs me@host:/ rw,user_id=0
91 28 259:70000 / /mnt/c rw - xfs /dev/nvme0n1p9 rw
`
	device := func(major, minor uint64) uint64 { // as makedev(3)
		return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
	}
	for dev, want := range map[uint64]string{
		device(254, 1): "ext4", device(0, 45): "fuse.sshfs", device(259, 70000): "xfs", device(9, 9): "FUSE",
	} {
		if got := mountType(table, dev); got != want {
			t.Errorf("mountType of %#x = %q, want %q", dev, got, want)
		}
	}
}

// A disk that failed is often mounted for reading only: reads go on, writes fail,
// and when it can be written again they work, with no restart.
func TestAFileThatCannotBeWrittenForAWhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, log := openWith(t, path, Options{rest: time.Hour})
	keys := fill(t, s, 300)
	fd := int(s.db.Load().file.Fd())
	writable, err := syscall.Dup(fd) // which keeps the lock, too
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(writable)
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	for range 3 {
		if err := syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys[:20] {
			if err := s.Create(t.Context(), session.Key{1}, loginRecord()); err == nil || errors.Is(err, errDamaged) {
				t.Errorf("Create: error = %v, want that of the disk", err)
			}
			if err := s.Replace(t.Context(), key, 1, []byte("new")); err == nil || errors.Is(err, session.ErrConflict) {
				t.Errorf("Replace: error = %v, want that of the disk", err)
			}
			if rec, err := s.Load(t.Context(), key); err != nil || rec.Version != 1 {
				t.Errorf("Load: version %d, %v, want 1", rec.Version, err)
			}
		}
		if err := syscall.Dup3(writable, fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		wantLogin(t, s)
	}
	wantConsistent(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if lines := log.lines(t, "store_damaged"); len(lines) > 0 {
		t.Errorf("log = %v: nothing is damaged", lines)
	}
	s, log = openWith(t, path, Options{})
	if lines := log.lines(t, "store_quarantined"); len(lines) > 0 {
		t.Errorf("log = %v: nothing is damaged", lines)
	}
	wantConsistent(t, s)
}

// A file or directory of another user cannot be opened: whose it is, and who asks,
// is what people need to know.
func TestAnotherUsersFileIsSaidToBeSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var")
	path := filepath.Join(dir, "sessions.db")
	if err := openAt(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	denied := fmt.Errorf("open: %w", os.ErrPermission)
	if got := openError(path, denied).Error(); strings.Contains(got, "belongs to") {
		t.Errorf("error = %q: it is our own", got)
	}
	theirs, whose := "/etc/passwd", 0
	if os.Geteuid() == whose {
		theirs, whose = path, 12345
		if err := os.Chown(path, whose, -1); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("%s belongs to user %d and the gateway runs as user %d", theirs, whose, os.Geteuid())
	if got := openError(theirs, denied).Error(); !strings.Contains(got, want) {
		t.Errorf("error = %q, want %q in it", got, want)
	}
}
