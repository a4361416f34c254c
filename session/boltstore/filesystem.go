package boltstore

import (
	"fmt"
	"path/filepath"
)

// fileSystem is what a directory is on.
type fileSystem struct {
	// kind is what people call it; empty if it is none that matters here.
	kind string
	// trait tells what is the matter.
	trait trait
	// free is how much may still be written, -1: unknown.
	free int64
}

type trait int

const (
	ordinary trait = iota
	// network: locks and memory maps of other machines' processes do not meet.
	network
	// userspace: a program of somebody's does the work, maybe over a network.
	userspace
	// volatile: a restart of the machine empties it.
	volatile
)

// judgePlace refuses a directory in which the file cannot be safe.
func (s *Store) judgePlace() error {
	dir := filepath.Dir(s.path)
	f, err := s.fileSystem(dir)
	if err != nil {
		return err
	}
	switch f.trait {
	case network:
		return fmt.Errorf("%s is on %s, a network file system: neither the lock that keeps a second process away nor "+
			"the memory map by which the file is read can be relied on there; use a local disk, or session.store.redis, "+
			"which several processes can share", dir, f.kind)
	case userspace:
		s.log.Warn("the store's file is on a file system in user space: if that is on a network, sessions will be lost",
			"event", "store_place", "path", dir, "kind", f.kind)
	case volatile:
		s.log.Info("the store's file is in memory: a restart of the machine logs everybody out", "event", "store_place",
			"path", dir, "kind", f.kind)
	}
	return nil
}
