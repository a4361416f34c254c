package boltstore

import (
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

func BenchmarkLoad(b *testing.B) {
	s := open(b)
	keys := fill(b, s, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Load(b.Context(), keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is what a start with a hundred thousand sessions takes.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "sessions.db")
	s, err := Open(path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, s, 100_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(fileSize(b, path))
	for b.Loop() {
		s, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplace is what a lone writer waits.
func BenchmarkReplace(b *testing.B) {
	s := open(b)
	key := fill(b, s, 1000)[0]
	data := make([]byte, 2000)
	b.ReportAllocs()
	for version := uint64(1); b.Loop(); version++ {
		if err := s.Replace(b.Context(), key, version, data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplaceParallel is what a write costs when many want to.
func BenchmarkReplaceParallel(b *testing.B) {
	s := open(b)
	keys := fill(b, s, 1000)
	data := make([]byte, 2000)
	var next atomic.Int64
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := keys[next.Add(1)]
		for version := uint64(1); pb.Next(); version++ {
			if err := s.Replace(b.Context(), key, version, data); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkTouch1000(b *testing.B) {
	s := open(b)
	keys := fill(b, s, 10000)
	touches := make([]session.Touch, 1000)
	at := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at = at.Add(time.Second)
		for j := range touches {
			touches[j] = session.Touch{Key: keys[(j*10+i)%len(keys)], At: at}
		}
		if err := s.Touch(b.Context(), touches); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is what a lone login waits when there are no marks.
func BenchmarkCreate(b *testing.B) {
	s := open(b)
	fill(b, s, 1000)
	rec := loginRecord()
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if err := s.Create(b.Context(), numbered(i), rec); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateParallel is what a login costs when many want to.
func BenchmarkCreateParallel(b *testing.B) {
	s := open(b)
	fill(b, s, 1000)
	rec := loginRecord()
	var next atomic.Uint64
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Create(b.Context(), numbered(next.Add(1)), rec); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// loginRecord is one with as many tags as a login makes.
func loginRecord() session.Record {
	now := time.Now()
	return session.Record{
		Created: now, Used: now, Expires: now.Add(time.Hour),
		Tags: []session.Tag{{1, 2}, {3, 4}, {5, 6}}, Listing: make([]byte, 200), Data: make([]byte, 2000),
	}
}

// numbered keys come in no order, as those of sessions do.
func numbered(i uint64) session.Key {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
}

// BenchmarkEndTaggedOfNobody is what a guess costs that reaches a front-channel
// or back-channel endpoint.
func BenchmarkEndTaggedOfNobody(b *testing.B) {
	s := open(b)
	fill(b, s, 1000)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if _, err := s.EndTagged(b.Context(), session.Tag(numbered(i)), session.FrontChannel, session.Scope{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTagged100 is a page of a hundred sessions, of a tag that has 390 of a
// hundred thousand.
func BenchmarkTagged100(b *testing.B) {
	s := open(b)
	fill(b, s, 100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		listed, err := s.Tagged(b.Context(), session.Tag{byte(i)}, session.Key{}, 100)
		if err != nil || len(listed) != 100 {
			b.Fatalf("Tagged = %d sessions, %v", len(listed), err)
		}
	}
}
