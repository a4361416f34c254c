package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/cmd/sessiongate/config"
)

// A flood of requests is no flood of lines, and hides nothing that happens for the
// first time.
func TestAFloodOfLinesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := newLogger(&b, config.Log{Level: "info", Format: "json"}, new(slog.LevelVar))
		app := log.With("app", "https://shop.example.com")
		for range 100_000 {
			app.Warn("a logout by the provider failed", "event", "backchannel_logout", "reason", "invalid_request")
			log.Info("request refused", "event", "csrf_rejected", "code", "origin_denied")
		}
		app.Warn("a logout by the provider failed", "event", "backchannel_logout", "reason", "temporarily_unavailable")
		for range 1000 {
			app.Info("logged out by the provider", "event", "backchannel_logout", "sessions", 1)
			app.Info("a session ended", "event", "session_ended", "reason", "logout")
		}
		time.Sleep(floodWindow + time.Second)
		log.Info("request refused", "event", "csrf_rejected", "code", "origin_denied")
		synctest.Wait()

		count := make(map[string]int)
		for line := range bytes.Lines(b.Bytes()) {
			var l struct {
				Event, Level, Reason, Code, Of string
				Lines                          int
			}
			if err := json.Unmarshal(line, &l); err != nil {
				t.Fatal(err)
			}
			count[l.Event+" "+l.Level+" "+l.Reason+l.Code+l.Of] += max(1, l.Lines)
		}
		for kind, want := range map[string]int{
			"backchannel_logout WARN invalid_request":          floodLines,
			"log_flood WARN invalid_requestbackchannel_logout": 100_000 - floodLines,
			"csrf_rejected INFO origin_denied":                 floodLines + 1, // the next window
			"log_flood INFO origin_deniedcsrf_rejected":        100_000 - floodLines,
			"backchannel_logout WARN temporarily_unavailable":  1,
			"backchannel_logout INFO ":                         1000,
			"session_ended INFO logout":                        1000,
		} {
			if count[kind] != want {
				t.Errorf("%s: %d, want %d", kind, count[kind], want)
			}
			delete(count, kind)
		}
		if len(count) > 0 {
			t.Errorf("besides: %v", count)
		}
	})
}

// Who makes one upstream or app fail hides nothing that happens at another.
func TestAFloodAtOneRouteHidesNothingOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := newLogger(&b, config.Log{Level: "info", Format: "json"}, new(slog.LevelVar))
		const shop, desk = "https://shop.example.com", "https://desk.example.com"
		fail := func(app, route string) {
			log.Warn("request failed", "event", "upstream_failed", "code", "upstream_timeout", "app", app, "route", route)
		}
		deny := func(app string) {
			log.With("app", app).Warn("login failed", "event", "login_failed", "reason", "login_refused")
		}
		for range 1000 {
			fail(shop, "/open/")
			deny(shop)
		}
		fail(shop, "/orders/")
		fail(desk, "/open/")
		deny(desk)
		time.Sleep(floodWindow + time.Second)
		synctest.Wait()
		for part, want := range map[string]int{
			`"route":"/orders/"`: 1,
			desk:                 2,
			`"of":"upstream_failed","reason":"upstream_timeout","app":"` + shop + `","route":"/open/","lines":980,`: 1,
			`"of":"login_failed","reason":"login_refused","app":"` + shop + `","lines":980,`:                        1,
		} {
			if n := bytes.Count(b.Bytes(), []byte(part)); n != want {
				t.Errorf("%s: %d, want %d", part, n, want)
			}
		}
	})
}

// Handshakes that fail, which cost a stranger nothing, do not hide that there are no
// more file descriptors.
func TestAFloodOfHandshakesHidesNoFailureToAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.NewLogLogger(serverLog{newLogger(&b, config.Log{Level: "info", Format: "json"}, new(slog.LevelVar)).Handler()}, slog.LevelInfo)
		for range 100 {
			log.Print("http: TLS handshake error from 192.0.2.1:4711: EOF")
		}
		log.Print("http: Accept error: accept tcp [::]:443: accept4: too many open files; retrying in 5ms")
		time.Sleep(floodWindow + time.Second)
		synctest.Wait()
		for part, want := range map[string]int{"TLS handshake error": floodLines, "too many open files": 1} {
			if n := bytes.Count(b.Bytes(), []byte(part)); n != want {
				t.Errorf("%s: %d lines, want %d", part, n, want)
			}
		}
	})
}
