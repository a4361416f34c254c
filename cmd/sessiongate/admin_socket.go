package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// listenSocket listens on a unix socket that only this user can open. It takes
// the place of a socket that a process left behind, and of nothing else. Closing
// the listener removes the file.
func listenSocket(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	var private error
	listening := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { private = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := listening.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	// Linux gives the file the mode that the socket had, so that it was never open to
	// others. Elsewhere the umask decides until here.
	if private != nil {
		private = os.Chmod(path, 0o600)
	}
	if private != nil {
		l.Close()
		return nil, private
	}
	return l, nil
}

// removeStale removes a socket on which nobody listens.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process answers on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s may be in use: %w", path, err)
	}
	return os.Remove(path)
}
