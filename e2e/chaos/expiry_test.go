package chaos

import (
	"testing"
	"time"
)

// TestExpiryDuringShutdown: a session whose time is over while the gateway stops
// ends as at any other time, for the gateway that stops and for the next.
func TestExpiryDuringShutdown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		redis  bool
		limits map[string]any
		reason string
	}{
		{"the lifetime, with a file", false, map[string]any{"lifetime": "3s"}, "lifetime"},
		{"the lifetime, with Redis", true, map[string]any{"lifetime": "3s"}, "lifetime"},
		{"the idle timeout, with a file", false, map[string]any{"idle_timeout": "3s"}, "idle_timeout"},
		{"the idle timeout, with Redis", true, map[string]any{"idle_timeout": "3s"}, "idle_timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const life, delay = 3 * time.Second, 6 * time.Second
			w := newWorld(t, setting{
				gateways: 1, redis: tt.redis, people: 2, tokenTTL: time.Second, tokenTimeout: 4 * time.Second,
				config: map[string]any{"shutdown_delay": delay.String(), "session": tt.limits},
			}, 0)
			quiet, busy := w.people[0], w.people[1]
			quiet.mustLogIn()
			busy.mustLogIn()
			began := time.Now()
			wait := w.Gateway.Terminate()
			eventually(t, "the gateway is not ready any more", func() bool { return !w.Gateway.Ready() })
			for time.Since(began) < life-500*time.Millisecond {
				if answer, err := busy.life.browser.Call(); err != nil || answer.String() != "200 token valid" {
					t.Fatalf("%v after the login: %v, %v", time.Since(began), answer, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			want := "401 session_ended " + tt.reason
			time.Sleep(time.Until(began.Add(life + life/20 + 200*time.Millisecond))) // idle ends may be 5 % late
			answer, err := quiet.life.browser.Call()
			if err != nil || answer.String() != want {
				t.Errorf("of a session that is over: %v, %v, want %s", answer, err, want)
			}
			answer, err = busy.life.browser.Call()
			if wanted := map[string]string{"lifetime": want, "idle_timeout": "200 token valid"}[tt.reason]; err != nil || answer.String() != wanted {
				t.Errorf("of one that was in use: %v, %v, want %s", answer, err, wanted)
			}
			if took := time.Since(began); took > delay {
				t.Fatalf("%v: too slow to ask before the gateway stops listening", took)
			}
			if err := wait(); err != nil {
				t.Errorf("sessiongate: %v", err)
			}
			w.Start()
			if answer, err := quiet.life.browser.Call(); err != nil || answer.String() != want {
				t.Errorf("after the restart: %v, %v, want %s", answer, err, want)
			}
			if resent := w.Gateway.Events("refresh_ambiguous"); resent > 0 || len(w.Provider.Stats().Reuses) > 0 {
				t.Errorf("%d refresh tokens were sent again", resent)
			}
			w.Gateway.Kill() // the delay is of no more use
		})
	}
}
