package redisstore

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"sessiongate/session"
)

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	full := record(random[session.Tag](), random[session.Tag]())
	full.Version, full.Used = 1<<40, time.UnixMicro(1_764_000_000_123_456)
	full.Began = full.Began.Add(123456789) // to the nanosecond
	bare := session.Record{Tags: []session.Tag{}, Listing: []byte{}, Data: []byte{}}
	for name, rec := range map[string]session.Record{"all there is": full, "nothing": bare} {
		got, err := decode(encode(rec), float64(rec.Used.UnixMicro()))
		if rec.Used.IsZero() {
			got.Used = time.Time{}
		}
		for _, at := range []*time.Time{&got.Began, &got.Created, &got.Expires, &got.Used, &rec.Began, &rec.Created, &rec.Expires, &rec.Used} {
			*at = at.UTC()
		}
		if err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("%s: decode = %+v, %v, want %+v", name, got, err, rec)
		}
	}
}

// A use is kept to the microsecond, and never as earlier than it was: nobody ends
// as idle too soon.
func TestScoresAreNeverEarly(t *testing.T) {
	at := time.Unix(1_764_000_000, 123_456_001)
	for _, row := range []struct {
		name, got, want string
	}{
		{"a use is rounded up", score(at), "1764000000123457"},
		{"a use on the microsecond stays", score(at.Truncate(time.Microsecond)), "1764000000123456"},
		{"what is over is rounded down", bound(at), "1764000000123456"},
		{"the zero time is 0", score(time.Time{}), "0"},
		{"a duration is rounded up", millis(1500 * time.Microsecond), "2"},
		{"a duration on the millisecond stays", millis(2 * time.Millisecond), "2"},
		{"a duration below 0 is the shortest", millis(-time.Hour), "1"},
		{"a duration beyond all bounds is a hundred years", millis(math.MaxInt64), "3153600000000"},
		{"digits of nanoseconds sort", nanos(at), "01764000000123456001"},
	} {
		if row.got != row.want {
			t.Errorf("%s: %s, want %s", row.name, row.got, row.want)
		}
	}
}

// FuzzDecode feeds records that nobody wrote: an error is all that may come of it.
func FuzzDecode(f *testing.F) {
	whole := encode(record(random[session.Tag](), random[session.Tag]()))
	f.Add("")
	f.Add("Tlogout")
	f.Add(whole)
	for _, n := range []int{1, 40, fixed - 1, fixed, fixed + 40, len(whole) - 5} {
		f.Add(whole[:n])
	}
	f.Add(whole[:41] + "9999999999" + whole[51:])
	f.Add(whole[:41] + "-000000001" + whole[51:])
	f.Add(whole[:51] + "9999" + whole[55:])
	f.Add(whole[:51] + "-001" + whole[55:])
	f.Fuzz(func(t *testing.T, value string) {
		rec, err := decode(value, 0)
		var ended *session.Ended
		switch {
		case value == "" && err != session.ErrAbsent:
			t.Errorf("decode of nothing: %v", err)
		case errors.As(err, &ended):
			if value[0] != isTombstone {
				t.Errorf("decode = %v of no tombstone", err)
			}
		case err == nil:
			if again := encode(rec); !bytes.Equal([]byte(again), []byte(value)) {
				t.Errorf("read and written it is %q, was %q", again, value)
			}
		}
	})
}
