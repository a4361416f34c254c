package redisstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
	"sessiongate/session/boltstore"
)

// These compare with boltstore in one run: what a process waits that asks a server
// beside it rather than its own file.

// loginRecord is one with as many tags and bytes as a login makes.
func loginRecord() session.Record {
	rec := record(session.Tag{1, 2}, session.Tag{3, 4}, session.Tag{5, 6})
	rec.Listing, rec.Data = make([]byte, 200), make([]byte, 2000)
	return rec
}

// numbered keys come in no order, as those of sessions do.
func numbered(i uint64) session.Key { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, i)) }

func stores(b *testing.B, bench func(b *testing.B, s session.Store)) {
	b.Run("bolt", func(b *testing.B) {
		s, err := boltstore.Open(filepath.Join(b.TempDir(), "sessions.db"), boltstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		bench(b, s)
	})
	b.Run("redis", func(b *testing.B) { bench(b, openAt(b, shared)) })
	b.Run("cluster", func(b *testing.B) { bench(b, openCluster(b, rand.Text()+":")) })
}

func fill(b *testing.B, s session.Store, n int) []session.Key {
	b.Helper()
	rec := loginRecord()
	keys := make([]session.Key, n)
	for i := range keys {
		keys[i] = numbered(uint64(i) | 1<<63)
		if err := s.Create(b.Context(), keys[i], rec); err != nil {
			b.Fatal(err)
		}
	}
	return keys
}

func BenchmarkLoad(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		keys := fill(b, s, 1000)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Load(b.Context(), keys[i%len(keys)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLoadParallel is what a read costs when many want to: they share round
// trips.
func BenchmarkLoadParallel(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		keys := fill(b, s, 1000)
		var next atomic.Int64
		b.SetParallelism(64)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Load(b.Context(), keys[int(next.Add(1))%len(keys)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkTrusted is what each request asks.
func BenchmarkTrusted(b *testing.B) {
	for name, s := range map[string]*Store{"one server": openAt(b, shared), "cluster": openCluster(b, rand.Text()+":")} {
		b.Run(name, func(b *testing.B) {
			key, now := numbered(1), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				s.Trusted(key, now)
			}
		})
	}
}

func BenchmarkReplace(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		key := fill(b, s, 1000)[0]
		data := make([]byte, 2000)
		b.ReportAllocs()
		for version := uint64(1); b.Loop(); version++ {
			if err := s.Replace(b.Context(), key, version, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCreate(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		rec := loginRecord()
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := s.Create(b.Context(), numbered(i), rec); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEnd(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		rec := loginRecord()
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			b.StopTimer()
			if err := s.Create(b.Context(), numbered(i), rec); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := s.End(b.Context(), numbered(i), session.Logout, session.Condition{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTouch1000(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		keys := fill(b, s, 1000)
		touches := make([]session.Touch, len(keys))
		at := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			at = at.Add(time.Second)
			for i, key := range keys {
				touches[i] = session.Touch{Key: key, At: at}
			}
			if err := s.Touch(b.Context(), touches); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEndTaggedOfNobody is what a guess costs that reaches a front-channel or
// back-channel endpoint.
func BenchmarkEndTaggedOfNobody(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if _, err := s.EndTagged(b.Context(), session.Tag(numbered(i)), session.FrontChannel, session.Scope{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTagged(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		rec := loginRecord()
		rec.Tags = []session.Tag{{1}}
		for i := range 5 { // a user's devices
			if err := s.Create(b.Context(), numbered(uint64(i)), rec); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		for b.Loop() {
			if listed, err := s.Tagged(b.Context(), session.Tag{1}, session.Key{}, 100); err != nil || len(listed) != 5 {
				b.Fatal(len(listed), err)
			}
		}
	})
}

func BenchmarkLease(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			l, err := s.Acquire(b.Context(), numbered(i), time.Minute)
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Release(b.Context(), l); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSweepOfNobody is what each replica does every minute.
func BenchmarkSweepOfNobody(b *testing.B) {
	stores(b, func(b *testing.B, s session.Store) {
		fill(b, s, 1000)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Sweep(b.Context(), session.Limits{Now: time.Now(), Idle: time.Hour, Lifetime: time.Hour}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBytesPerSession tells how much of a server's memory a session takes,
// with 2.2 KB of its own.
func BenchmarkBytesPerSession(b *testing.B) {
	sv := launch(b)
	s := openAt(b, sv)
	before := memory(b, sv)
	n := 0
	for b.Loop() {
		rec := loginRecord()
		rec.Tags[0], rec.Tags[1] = random[session.Tag](), random[session.Tag]()
		if err := s.Create(b.Context(), random[session.Key](), rec); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(memory(b, sv)-before)/float64(n), "B/session")
}

func memory(b *testing.B, sv *server) int64 {
	c := sv.client(b)
	stats, err := c.Do(b.Context(), c.B().Arbitrary("MEMORY", "STATS").Build()).AsMap()
	if err != nil {
		b.Fatal(err)
	}
	used := stats["total.allocated"]
	n, err := used.AsInt64()
	if err != nil {
		b.Fatal(err)
	}
	return n
}
