package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"sessiongate/session"
)

// A live record is one string. Its begin is for scripts, which count in digits of
// fixed length:
//
//	 1  "L"
//	20  version
//	20  began, in nanoseconds since 1970, 0 where nobody knows
//	10  length of all before data
//	 4  number of tags
//	32  binding
//	32  each tag
//	 8  created, in nanoseconds, big endian
//	 8  expires
//	    listing
//	    data
//
// The last use is apart, in a sorted set: a touch rewrites no record, and tells
// nobody who watches the record that it changed. A tombstone is "T" and the
// reason.
const (
	isLive      = 'L'
	isTombstone = 'T'

	// fixed is where the tags begin.
	fixed = 1 + 20 + 20 + 10 + 4 + 32
)

var errDamaged = errors.New("a record that this version does not read")

func encode(rec session.Record) string {
	head := fixed + 32*len(rec.Tags) + 8 + 8 + len(rec.Listing)
	b := make([]byte, 0, head+len(rec.Data))
	b = append(b, isLive)
	b = fmt.Appendf(b, "%020d%s%010d%04d", rec.Version, nanos(rec.Began), head, len(rec.Tags))
	b = append(b, rec.Binding[:]...)
	for _, tag := range rec.Tags {
		b = append(b, tag[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, stamp(rec.Created))
	b = binary.BigEndian.AppendUint64(b, stamp(rec.Expires))
	b = append(b, rec.Listing...)
	return string(append(b, rec.Data...))
}

// decode reads a record, all of it or but its data, and the score of its last
// use. ErrAbsent, *Ended.
func decode(value string, used float64) (session.Record, error) {
	switch {
	case value == "":
		return session.Record{}, session.ErrAbsent
	case value[0] == isTombstone:
		return session.Record{}, &session.Ended{Reason: session.Reason(value[1:])}
	case value[0] != isLive || len(value) < fixed:
		return session.Record{}, errDamaged
	}
	version, err1 := strconv.ParseUint(value[1:21], 10, 64)
	began, err2 := strconv.ParseUint(value[21:41], 10, 63)
	head, err3 := strconv.Atoi(value[41:51])
	tags, err4 := strconv.Atoi(value[51:55])
	if errors.Join(err1, err2, err3, err4) != nil || head > len(value) || tags < 0 || head < fixed+32*tags+16 {
		return session.Record{}, errDamaged
	}
	rec := session.Record{
		Version: version,
		Binding: [32]byte([]byte(value[55:fixed])),
		Began:   moment(began),
		Used:    usedAt(used),
		Tags:    make([]session.Tag, tags),
		Data:    []byte(value[head:]),
	}
	rest := value[fixed:head]
	for i := range rec.Tags {
		rec.Tags[i] = session.Tag([]byte(rest[:32]))
		rest = rest[32:]
	}
	rec.Created = moment(binary.BigEndian.Uint64([]byte(rest[:8])))
	rec.Expires = moment(binary.BigEndian.Uint64([]byte(rest[8:16])))
	rec.Listing = []byte(rest[16:])
	return rec, nil
}

// stamp is a time in nanoseconds since 1970. The zero time, and whatever else was
// before, is 0.
func stamp(t time.Time) uint64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return uint64(t.UnixNano())
}

func moment(stamp uint64) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(stamp))
}

// nanos is a stamp in digits that sort as the times do.
func nanos(t time.Time) string { return fmt.Sprintf("%020d", stamp(t)) }

// score is a time in a sorted set, in microseconds: all that a double holds. It is
// rounded up, so that nothing is over early.
func score(t time.Time) string {
	return strconv.FormatUint((stamp(t)+999)/1000, 10)
}

// bound is the greatest score of what is over at a time.
func bound(t time.Time) string { return strconv.FormatUint(stamp(t)/1000, 10) }

func usedAt(score float64) time.Time { return moment(uint64(score) * 1000) }

// millis is a duration for the server, rounded up, and as long as none is.
func millis(d time.Duration) string {
	const longest = 100 * 365 * 24 * time.Hour
	d = min(d, longest) + time.Millisecond - 1
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// micros is a duration in the unit of scores.
func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
