package boltstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Place is what Inspect finds out about a path.
type Place struct {
	Exists bool // there is a file
	Held   bool // another process has it open
}

// Inspect tells whether Open could use the path. It changes nothing, and it takes the
// file's lock only if it is free, for a moment.
func Inspect(path string) (Place, error) {
	var found Place
	err := found.look(path)
	if err != nil {
		return Place{}, openError(path, err)
	}
	return found, nil
}

func (p *Place) look(path string) error {
	path, err := leadsTo(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return mayWrite(existing(dir)) // Open makes what is missing
	}
	s := &Store{path: path}
	s.defaults()
	if err := errors.Join(s.judgePlace(), mayWrite(dir)); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Exists = true
	err = lock(file, time.Now())
	if errors.Is(err, errHeld) {
		p.Held, err = true, nil
	} else if err == nil {
		err = notOurs(file)
	}
	return errors.Join(err, file.Close())
}

// notOurs tells a file that Open refuses. One that is damaged it sets aside.
func notOurs(file *os.File) error {
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, errIrregular)
	}
	if _, _, err := metaPage(file); errors.Is(err, errForeign) {
		return err
	}
	return nil
}

// existing is the nearest directory that there is.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// mayWrite tells whether files can be made in a directory: compaction makes one.
func mayWrite(dir string) error {
	file, err := os.CreateTemp(dir, ".sessiongate-check-")
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}
