//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package boltstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock takes bbolt's lock on the file before bbolt does, which then finds that it
// has it: what is judged and set aside must not be open in another process.
func lock(file *os.File, deadline time.Time) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		if !time.Now().Before(deadline) {
			return errHeld
		}
		time.Sleep(20 * time.Millisecond) // flock has no time-out
	}
}

// owner tells whose a file or directory is, if it is somebody else's.
func owner(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return ""
	}
	return fmt.Sprintf("; %s belongs to user %d and the gateway runs as user %d: let it run as that user, or chown what is there",
		path, stat.Uid, os.Geteuid())
}
