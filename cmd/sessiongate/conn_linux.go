package main

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the peer has not acknowledged yet (tcp(7), SIOCOUTQ).
func unsent(c *net.TCPConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) {
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = queued
		}
	})
	return n
}
