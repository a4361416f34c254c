package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"unicode/utf8"
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

// A meta page is magic 4, version 4, page size 4, flags 4, root page 8, sequence
// 8, free list 8, number of pages 8, transaction 8, and FNV-1a of all that 8.
const (
	metaLen     = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	freelistPage = 0x10
)

// verify reads a file that is not empty, in which nobody writes.
func verify(file io.ReaderAt) error {
	m, pageSize, err := metaPage(file)
	if err != nil {
		return err
	}
	pages := order.Uint64(m[40:])
	if err := reaches(file, pages, pageSize); err != nil {
		return err // before there is memory for so many
	}
	t := &tree{file: file, pageSize: pageSize, seen: make([]bool, pages)}
	if err := t.walk(order.Uint64(m[16:]), nil, nil); err != nil {
		return err
	}
	if list := order.Uint64(m[32:]); list != noFreelist {
		return t.free(list)
	}
	return nil
}

// reaches tells whether the file has so many pages. bbolt makes it as long before it
// says so.
func reaches(file io.ReaderAt, pages, pageSize uint64) error {
	if pages == 0 || pages > math.MaxInt64/pageSize {
		return fmt.Errorf("%w: %d pages", errDamaged, pages)
	}
	var last [1]byte
	_, err := file.ReadAt(last[:], int64(pages*pageSize)-1)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: its end is missing", errDamaged)
	}
	return err
}

// metaPage returns the meta page in force, without its header. There are two, written in turn, and bbolt
// makes do with one: after damage to the newer that is the state before the last
// write, with a session that has ended, or a refresh token that is spent. A crash
// does not tear a meta page, which is smaller than a sector. So both have to be
// whole.
func metaPage(file io.ReaderAt) (m page, pageSize uint64, err error) {
	first := make(page, 512)
	n, err := file.ReadAt(first, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if isText(first[:n]) {
		return nil, 0, errForeign
	}
	if err := first[:n].meta(); err != nil {
		return nil, 0, fmt.Errorf("%w: the first meta page: %w", errDamaged, err)
	}
	first = first[headerLen:]
	pageSize = uint64(order.Uint32(first[8:]))
	second := make(page, headerLen+metaLen)
	if _, err := file.ReadAt(second, int64(pageSize)); errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("%w: its end is missing", errDamaged)
	} else if err != nil {
		return nil, 0, err
	}
	if err := second.meta(); err != nil {
		return nil, 0, fmt.Errorf("%w: the second meta page: %w", errDamaged, err)
	}
	second = second[headerLen:]
	if order.Uint64(second[48:]) > order.Uint64(first[48:]) {
		return second, pageSize, nil
	}
	return first, pageSize, nil
}

// isText tells whether a file begins with words for people. No damage does that to
// one of bbolt's; it is somebody's configuration, and a mistake in ours.
func isText(b []byte) bool {
	for range utf8.UTFMax - 1 { // the buffer may end inside a character
		if !utf8.Valid(b) {
			b = b[:len(b)-1]
		}
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }
	return len(b) > 0 && utf8.Valid(b) && bytes.IndexFunc(b, control) < 0
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

// free verifies the list of free pages that a file has before its first write, or
// from another program. All on it must be free.
func (t *tree) free(id uint64) error {
	p, err := t.page(id)
	if err != nil {
		return err
	}
	ids := p[headerLen:]
	n := uint64(p.count())
	if n == 0xffff { // there are more: the first number is how many
		n, ids = order.Uint64(ids), ids[8:]
	}
	if p.flags() != freelistPage || n > uint64(len(ids)/8) {
		return fmt.Errorf("%w: page %d is no list of free pages", errDamaged, id)
	}
	for i := range n {
		free := order.Uint64(ids[i*8:])
		if free < 2 || free >= uint64(len(t.seen)) || t.seen[free] {
			return fmt.Errorf("%w: page %d is listed as free", errDamaged, free)
		}
		t.seen[free] = true
	}
	return nil
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

// meta verifies a meta page. Its header says nothing that matters.
func (p page) meta() error {
	if len(p) < headerLen+metaLen {
		return errors.New("cut off")
	}
	m := p[headerLen:]
	sum := fnv.New64a()
	sum.Write(m[:metaLen-8])
	switch pageSize := order.Uint32(m[8:]); {
	case order.Uint32(m) != metaMagic:
		return errors.New("it is none")
	case order.Uint32(m[4:]) != metaVersion:
		return fmt.Errorf("bbolt's version %d", order.Uint32(m[4:]))
	case order.Uint64(m[metaLen-8:]) != sum.Sum64():
		return errors.New("its checksum is wrong")
	case pageSize < 1<<10 || pageSize > 1<<24 || pageSize&(pageSize-1) != 0:
		return fmt.Errorf("a page size of %d", pageSize)
	}
	return nil
}

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
