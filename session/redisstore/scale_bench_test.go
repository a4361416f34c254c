package redisstore

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// BenchmarkServerCPU tells how much of a server's one core each operation takes,
// when many come at once: what docs/scaling.md reckons with.
func BenchmarkServerCPU(b *testing.B) {
	sv := launch(b)
	s := openAt(b, sv)
	keys := fill(b, s, 10_000)
	data := make([]byte, 2000)
	for _, op := range []struct {
		name string
		do   func(b *testing.B, i uint64) error
	}{
		{"load", func(b *testing.B, i uint64) error {
			_, err := s.Load(b.Context(), keys[i%uint64(len(keys))])
			return err
		}},
		{"create", func(b *testing.B, i uint64) error {
			rec := loginRecord()
			rec.Tags[0], rec.Tags[1] = session.Tag(numbered(i)), session.Tag(numbered(i+1<<62))
			return s.Create(b.Context(), random[session.Key](), rec)
		}},
		{"create and end", func(b *testing.B, i uint64) error {
			key := random[session.Key]()
			if err := s.Create(b.Context(), key, loginRecord()); err != nil {
				return err
			}
			_, err := s.End(b.Context(), key, session.Logout, session.Condition{})
			return err
		}},
		{"replace", func(b *testing.B, i uint64) error {
			err := s.Replace(b.Context(), keys[i%uint64(len(keys))], 1+i/uint64(len(keys)), data)
			if err == session.ErrConflict {
				return nil // the one before it was overtaken
			}
			return err
		}},
		{"lease", func(b *testing.B, i uint64) error {
			l, err := s.Acquire(b.Context(), numbered(i), time.Minute)
			if err != nil {
				return err
			}
			return s.Release(b.Context(), l)
		}},
		{"500 touches", func(b *testing.B, i uint64) error {
			touches := make([]session.Touch, touchBatch)
			for n := range touches {
				touches[n] = session.Touch{Key: keys[(int(i)*touchBatch+n)%len(keys)], At: time.Now().Add(time.Duration(i) * time.Second)}
			}
			return s.Touch(b.Context(), touches)
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			var next atomic.Uint64
			before := cpu(b, sv)
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := op.do(b, next.Add(1)-1); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64((cpu(b, sv)-before).Microseconds())/float64(b.N), "server-µs/op")
		})
	}
}

// cpu is the time of the server's process on a core so far.
func cpu(b *testing.B, sv *server) time.Duration {
	b.Helper()
	c := sv.client(b)
	info, err := c.Do(b.Context(), c.B().Arbitrary("INFO", "cpu").Build()).ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		b.Fatal(err)
	}
	var all time.Duration
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			all += time.Duration(seconds * float64(time.Second))
		}
	}
	return all
}
