package boltstore

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
)

// cyclesVariable says how many sessions TestTheFileStaysSmall makes and lets run
// out; a million in the long form.
const cyclesVariable = "SESSIONGATE_CYCLES"

// Sessions come and go for weeks. The file is at most twice as large as what is in
// it takes (anubis#820: 2.5 GB in a day; pains.md, b4; ST-07).
func TestTheFileStaysSmall(t *testing.T) {
	cycles := 10_000
	if v := os.Getenv(cyclesVariable); v != "" {
		var err error
		if cycles, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, log := openWith(t, path, Options{rest: time.Second, least: 2 << 20})
	clock := time.Now().Add(-100 * 24 * time.Hour)
	const minutes = 10 // that a session lasts
	generation := min(cycles/100, 2000)
	begun := time.Now()
	largest := int64(0)
	sweep := func() (ended int) {
		t.Helper()
		endings, err := s.Sweep(t.Context(), session.Limits{Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, fileSize(t, path))
		return len(endings)
	}
	ended := 0
	for g := range cycles / generation {
		createAll(t, s, g*generation, generation, clock, clock.Add(minutes*time.Minute))
		clock = clock.Add(time.Minute)
		ended += sweep()
	}
	if want := cycles - (minutes-1)*generation; ended != want {
		t.Errorf("%d sessions ran out, want %d", ended, want)
	}
	wantSmall := func(what string) {
		t.Helper()
		// The next look at the file does what is to be done.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			size, needed := fileSize(t, path), compactedSize(t, s)
			if size <= max(2*needed, s.least) {
				t.Logf("%s: %d bytes, and it takes %d", what, size, needed)
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%s: %d bytes, and it takes %d, want at most twice that", what, size, needed)
				return
			}
		}
	}
	wantSmall("sessions come and go")
	wantConsistent(t, s)
	clock = clock.Add(24 * time.Hour)
	sweep() // all run out
	sweep() // and are forgotten
	wantSmall("all are gone")
	if n, err := s.Count(t.Context()); err != nil || n != 0 {
		t.Errorf("Count = %d, %v, want 0", n, err)
	}
	if largest <= s.least {
		t.Errorf("the file had %d bytes at most: too few to see anything", largest)
	}
	t.Logf("%d cycles in %v, %d compactions, at most %d bytes", cycles, time.Since(begun).Round(time.Second),
		len(log.lines(t, "store_compacted")), largest)
}

// createAll makes n sessions, many at a time.
func createAll(t *testing.T, s *Store, first, n int, created, expires time.Time) {
	t.Helper()
	var all sync.WaitGroup
	for worker := range 128 {
		all.Go(func() {
			for i := first + worker; i < first+n; i += 128 {
				rec := loginRecord()
				rec.Created, rec.Used, rec.Expires = created, created, expires
				rec.Tags = []session.Tag{session.Tag(numbered(uint64(i) << 32)), session.Tag(numbered(uint64(i%1000) << 33)), {1}}
				rec.Data = make([]byte, 500+rand.N(4000))
				if err := s.Create(t.Context(), numbered(uint64(i)), rec); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkReplaceWhileCompacting is what writers wait, one after the other, while
// a file of 100 MB is compacted over and over, and while it is not.
func BenchmarkReplaceWhileCompacting(b *testing.B) {
	for _, row := range []struct {
		name       string
		compacting bool
	}{{"quiet", false}, {"compacting", true}} {
		b.Run(row.name, func(b *testing.B) {
			s, log := openWith(b, filepath.Join(b.TempDir(), "sessions.db"), Options{rest: time.Hour})
			keys := fill(b, s, 30_000)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for row.compacting {
					select {
					case <-stop:
						return
					default:
					}
					if err := s.compact(); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			var waits []time.Duration
			data := make([]byte, 2000)
			versions := map[session.Key]uint64{}
			for b.Loop() {
				key := keys[rand.N(len(keys))]
				begun := time.Now()
				if err := s.Replace(b.Context(), key, versions[key]+1, data); err != nil {
					b.Fatal(err)
				}
				waits = append(waits, time.Since(begun))
				versions[key]++
			}
			close(stop)
			<-stopped
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(waits[len(waits)-1].Microseconds())/1000, "max-ms")
			if row.compacting {
				b.ReportMetric(float64(len(log.lines(b, "store_compacted"))), "compactions")
			}
		})
	}
}
