package boltstore

import (
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
