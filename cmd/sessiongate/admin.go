package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminHandler serves health and metrics, and sessions to those who may have
// them (DESIGN.md, section 8).
func (s *server) adminHandler(d door) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", onlyGet(http.HandlerFunc(s.healthz)))
	mux.Handle("/readyz", onlyGet(http.HandlerFunc(s.readyz)))
	mux.Handle("/metrics", onlyGet(promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{ErrorLog: s.public.ErrorLog})))
	health, sessions := guardAdmin(d, mux), &adminSessions{server: s, door: d}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if sessions.has(r.URL.Path) {
			sessions.ServeHTTP(w, r)
			return
		}
		health.ServeHTTP(w, r)
	})
}

// door is where operators come in.
type door struct {
	// socket: by a file that only they can open.
	socket bool
	// host is that of admin.listen; the socket has none.
	host string
}

// guardAdmin keeps web pages out: they send Origin with what they may not read
// anyway, and a name that was rebound to this address is none of those allowed.
func guardAdmin(d door, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isFromPage(r) || !d.admits(r.Host) {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isFromPage(r *http.Request) bool { return len(r.Header["Origin"]) > 0 }

func onlyGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admits allows loopback names where the listener is on loopback: a name that a
// web page had rebound to it is none. Elsewhere the network decides who comes, by
// whatever name its health checks and scrapers know us.
func (d door) admits(hostport string) bool {
	if !isLoopbackHost(d.host) {
		return true
	}
	host := hostOf(hostport)
	return isLoopbackHost(host) || strings.EqualFold(host, d.host)
}

// admitsToSessions asks for more, wherever the listener is: a name that is not
// ours may be one that a web page had rebound to us. Nobody can rebind an
// address.
func (d door) admitsToSessions(hostport string) bool {
	host := hostOf(hostport)
	_, err := netip.ParseAddr(host)
	return d.socket || d.admits(hostport) && (err == nil || isLoopbackHost(host) || strings.EqualFold(host, d.host) && host != "")
}

// hostOf is a Host field without its port.
func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]")
	}
	return host
}

func isLoopbackHost(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readiness is the answer of readyz. Providers are told and count for nothing:
// sessions go on without them (OP-07).
type readiness struct {
	Ready         bool              `json:"ready"`
	Stopping      bool              `json:"stopping"`
	Store         string            `json:"store"`
	Configuration string            `json:"configuration"`
	Providers     map[string]string `json:"providers"` // by the app's origin
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	e := s.current.Load()
	state := readiness{Stopping: s.draining.Load(), Store: "ok", Configuration: "ok", Providers: make(map[string]string)}
	if !s.storeAnswers(r.Context()) {
		state.Store = "unavailable"
	}
	if s.refused.Load() {
		state.Configuration = "the last reload was refused, the former configuration is in force"
	}
	for i, client := range e.clients {
		state.Providers[e.cfg.Apps[i].Origin] = "ok"
		if client.Ready() != nil {
			state.Providers[e.cfg.Apps[i].Origin] = "unavailable"
		}
	}
	state.Ready = !state.Stopping && state.Store == "ok"
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	reply(w, status, state)
}

// storeAnswers asks the store. An outage is one line of the log, and its end another,
// however many probes come in between.
func (s *server) storeAnswers(ctx context.Context) bool {
	// That a probe hangs up says nothing of the store.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := s.store.Ping(ctx)
	switch silent := err != nil; {
	case s.silent.Swap(silent) == silent:
	case silent:
		s.log.Warn("the store does not answer", "event", "store_unavailable", "error", err)
	default:
		s.log.Info("the store answers again", "event", "store_available")
	}
	return err == nil
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
