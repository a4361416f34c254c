package cut

import (
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// A gateway to which its store is silent, while nothing says so, serves nothing from
// memory beyond liveness (and grace): then everything is 503, with the cookie kept.
// That a session ended elsewhere it says as soon as it knows, and not before.
func TestNothingStaleIsServedInSilence(t *testing.T) {
	for _, row := range []struct {
		name  string
		grace time.Duration
		line  func(t *testing.T, to string) line
	}{
		{"by a relay that passes nothing on", 0, newRelay},
		{"by a relay that passes nothing on, with grace", 5 * time.Second, newRelay},
		{"by a network that drops all packets", 0, newNetwork(1, "link set far down", "link set far up")},
		{"by a network that drops the answers", 0, newNetwork(2, "route add blackhole HERE/32", "route del blackhole HERE/32")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t)
			w := newWorld(t, 3, redis.Store(map[string]any{"grace": row.grace.String()}))
			line := row.line(t, redis.Address())
			w.through(line.address)
			w.Start()
			leaver, stayer, stranger := w.login(w.users[0]), w.login(w.users[1]), w.login(w.users[2])
			gone, live := w.copy(leaver, w.b), w.copy(stayer, w.b)
			for range 2 { // the second time from memory
				w.want("before, at A", leaver.Via(w.a), good)
				w.want("before, at B", gone, good)
				w.want("before, at B", live, good)
			}

			cut := time.Now()
			line.cut()
			if err := leaver.Via(w.a).Logout(); err != nil {
				t.Fatal(err)
			}
			out := time.Now()
			unknown := make(chan *gatewaytest.Answer, 1)
			go func() { // not in B's memory
				answer, _ := w.copy(stranger, w.b).Call()
				unknown <- answer
			}()
			last, slowest := serve(t, gone, live)
			t.Logf("from memory served until %v after the cut, %v after the logout; an answer took %v at most",
				last.Sub(cut).Round(time.Millisecond), last.Sub(out).Round(time.Millisecond), slowest.Round(time.Millisecond))
			if late := last.Sub(out); late > liveness+row.grace+busy {
				t.Errorf("served from memory %v after the logout elsewhere, want %v at most", late, liveness+row.grace)
			}
			if early := last.Sub(cut); early < (liveness+row.grace)/2 {
				t.Errorf("nothing was served %v after the cut: a moment's silence is an outage", early)
			}
			if answer := <-unknown; answer == nil || !unavailable(answer) {
				t.Errorf("a session that B had not in memory: %v", answer)
			}
			w.want("at A meanwhile", stayer.Via(w.a), good)
			if w.b.Ready() {
				t.Error("B says it is ready")
			}

			healed := time.Now()
			line.heal()
			w.await("the live session, healed", live, good, 3*time.Second)
			w.await("the ended session, healed", gone, ended("logout"), 3*time.Second)
			t.Logf("told the truth again %v after", time.Since(healed).Round(time.Millisecond))
		})
	}
}

// serve calls by both browsers again and again, until each was refused. It tells when
// the last request began that had a good answer, and how long a request waited at
// most. Once one is refused, all are.
func serve(t *testing.T, gone, live *gatewaytest.Browser) (last time.Time, slowest time.Duration) {
	t.Helper()
	for refused, end := 0, time.Now().Add(patience); refused < 2; time.Sleep(5 * time.Millisecond) {
		for i, browser := range []*gatewaytest.Browser{gone, live} {
			name := []string{"the ended session", "the live session"}[i]
			begun := time.Now()
			answer, err := browser.Call()
			slowest = max(slowest, time.Since(begun))
			switch {
			case err != nil:
				t.Fatal(err)
			case unavailable(answer):
				refused++
			case !good(answer):
				t.Fatalf("%s, while B was cut off: %s, Set-Cookie %q", name, answer, answer.Header["Set-Cookie"])
			case refused > 0:
				t.Fatalf("%s was served after a 503, while B was cut off", name)
			case begun.After(end):
				t.Fatal("B does not stop to serve from memory")
			default:
				last = begun
			}
		}
	}
	return last, slowest
}
