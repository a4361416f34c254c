package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// bbolt keeps no list of free pages on disk for us: it finds them at open by a
// walk over the whole file, in a goroutine of its own. If a page is damaged,
// that goroutine ends the process, and so does each restart. So the file is
// walked here first, without believing any number in it.

// The layout of a page, which bbolt has had since boltdb: a header of id 8,
// flags 2, count 2, overflow 4 bytes, then the elements, then keys and values.
// An element of a branch is pos 4, key size 4, child 8, one of a leaf flags 4,
// pos 4, key size 4, value size 4; pos counts from the element. The value of a
// bucket begins with its root page 8, sequence 8; if the root is 0, the bucket is
// small and its only page follows. Numbers are in the machine's byte order.
const (
	headerLen  = 16
	elementLen = 16
	bucketLen  = 16

	branchPage  = 0x01
	leafPage    = 0x02
	bucketEntry = 0x01
)

// verify reads the file at path, which exists, under bbolt's lock.
func verify(path string, wait time.Duration) error {
	db, err := openBolt(path, bbolt.Options{Timeout: wait, ReadOnly: true, NoStatistics: true})
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			pageSize := uint64(db.Info().PageSize)
			t := &tree{file: file, pageSize: pageSize, seen: make([]bool, uint64(tx.Size())/pageSize)}
			err = t.walk(uint64(tx.Cursor().Bucket().RootPage()), nil, nil)
			return errors.Join(err, file.Close())
		})
	})
	return errors.Join(err, db.Close())
}

// tree is bbolt's tree of pages.
type tree struct {
	file     io.ReaderAt
	pageSize uint64
	seen     []bool // by page
}

// walk verifies a page and all below it. Its keys have to be in order, not less
// than least and less than below, unless those are nil.
func (t *tree) walk(id uint64, least, below []byte) error {
	p, err := t.page(id)
	if err != nil {
		return err
	}
	return t.check(id, p, least, below)
}

// check is walk for a page that was read, of the number or in one of the number.
func (t *tree) check(id uint64, p page, least, below []byte) error {
	elements, err := p.elements()
	if err != nil {
		return fmt.Errorf("%w: page %d: %w", errDamaged, id, err)
	}
	for i, e := range elements {
		next := below
		if i+1 < len(elements) {
			next = elements[i+1].key
		}
		if bytes.Compare(e.key, least) < 0 || next != nil && bytes.Compare(e.key, next) >= 0 {
			return fmt.Errorf("%w: page %d: keys are out of order", errDamaged, id)
		}
		switch {
		case p.flags() == branchPage:
			err = t.walk(e.child, e.key, next)
		case e.inside != nil:
			err = t.check(id, e.inside, nil, nil)
		case e.bucket:
			err = t.walk(e.child, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// page reads a page with its overflow. It may be named only once.
func (t *tree) page(id uint64) (page, error) {
	total := uint64(len(t.seen))
	if id < 2 || id >= total {
		return nil, fmt.Errorf("%w: page %d of %d", errDamaged, id, total)
	}
	p := make(page, t.pageSize)
	if err := t.read(p, id); err != nil {
		return nil, err
	}
	overflow := p.overflow()
	if p.id() != id || overflow >= total-id {
		return nil, fmt.Errorf("%w: page %d is none", errDamaged, id)
	}
	for i := id; i <= id+overflow; i++ {
		if t.seen[i] {
			return nil, fmt.Errorf("%w: page %d is used twice", errDamaged, i)
		}
		t.seen[i] = true
	}
	if overflow > 0 {
		p = make(page, (1+overflow)*t.pageSize)
		return p, t.read(p, id)
	}
	return p, nil
}

func (t *tree) read(p page, id uint64) error {
	_, err := t.file.ReadAt(p, int64(id*t.pageSize))
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: its end is missing", errDamaged)
	}
	return err
}

// page is a page of the file with its overflow.
type page []byte

var order = binary.NativeEndian

func (p page) id() uint64       { return order.Uint64(p) }
func (p page) flags() uint16    { return order.Uint16(p[8:]) }
func (p page) count() int       { return int(order.Uint16(p[10:])) }
func (p page) overflow() uint64 { return uint64(order.Uint32(p[12:])) }

// element is an entry of a page. Child is the page that it leads to, if any, and
// inside the page of a small bucket.
type element struct {
	key    []byte
	child  uint64
	bucket bool
	inside page
}

func (p page) elements() ([]element, error) {
	if headerLen+p.count()*elementLen > len(p) {
		return nil, fmt.Errorf("too many elements: %d", p.count())
	}
	if p.count() == 0 && p.flags() == branchPage {
		return nil, errors.New("a branch without elements")
	}
	elements := make([]element, p.count())
	for i := range elements {
		rest := p[headerLen+i*elementLen:]
		var pos, keyLen, valueLen uint64
		switch p.flags() {
		case branchPage:
			pos, keyLen = uint64(order.Uint32(rest)), uint64(order.Uint32(rest[4:]))
			elements[i].child = order.Uint64(rest[8:])
		case leafPage:
			pos, keyLen, valueLen = uint64(order.Uint32(rest[4:])), uint64(order.Uint32(rest[8:])), uint64(order.Uint32(rest[12:]))
			elements[i].bucket = order.Uint32(rest)&bucketEntry != 0
		default:
			return nil, fmt.Errorf("flags %x", p.flags())
		}
		if pos+keyLen+valueLen > uint64(len(rest)) {
			return nil, fmt.Errorf("element %d is cut off", i)
		}
		elements[i].key = rest[pos : pos+keyLen : pos+keyLen]
		if elements[i].bucket {
			value := page(rest[pos+keyLen : pos+keyLen+valueLen])
			if len(value) < bucketLen {
				return nil, fmt.Errorf("bucket %d is cut off", i)
			}
			elements[i].child = order.Uint64(value)
			if elements[i].child != 0 {
				continue
			}
			elements[i].inside = value[bucketLen:]
			if len(elements[i].inside) < headerLen || elements[i].inside.flags() != leafPage {
				return nil, fmt.Errorf("bucket %d has no page", i)
			}
		}
	}
	return elements, nil
}
