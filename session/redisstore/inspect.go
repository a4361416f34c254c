package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// Finding is one thing that Inspect found out.
type Finding struct {
	Grade Grade
	What  string
	Fix   string // what to do; empty where nothing is
}

// Grade tells how bad a finding is.
type Grade int

// Grades of findings.
const (
	Good   Grade = iota
	Unwise       // it works, and a promise does not hold
	Wrong        // it does not work, or sessions get lost
)

// inspection collects findings.
type inspection struct {
	s   *Store
	all []Finding
}

func (i *inspection) good(format string, args ...any) {
	i.all = append(i.all, Finding{Good, fmt.Sprintf(format, args...), ""})
}

func (i *inspection) unwise(what, fix string) { i.all = append(i.all, Finding{Unwise, what, fix}) }
func (i *inspection) wrong(what, fix string)  { i.all = append(i.all, Finding{Wrong, what, fix}) }

// Inspect asks the servers whether they are fit to keep sessions, and which promises
// their settings keep. It writes one key, which lasts for a second.
func (s *Store) Inspect(ctx context.Context) []Finding {
	i := &inspection{s: s}
	if err := s.reach(ctx); err != nil {
		i.wrong(err.Error(), s.remedy(err))
		return i.all
	}
	masters, err := s.masters(ctx)
	if err != nil {
		i.wrong(err.Error(), s.remedy(err))
		return i.all
	}
	if s.opts.Cluster {
		i.good("the Cluster is whole, with %d masters", len(masters))
	}
	for _, m := range masters {
		i.server(ctx, m.addr, m.client)
	}
	i.try(ctx)
	i.clocks(ctx)
	return i.all
}

// remedy is what to do about a server that cannot be used.
func (s *Store) remedy(err error) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	text := err.Error()
	switch {
	case errors.As(err, &certificate):
		return "name in tls.ca the CA that signed the server's certificate, which has to be for the host in addresses"
	case errors.As(err, &record), s.opts.TLS != nil && errors.Is(err, errSilent): // it waits for more
		return "start the server; if it speaks no TLS at this port, use its tls-port, or remove tls"
	case strings.Contains(text, errPlaintext.Error()):
		return "set tls, or insecure_plaintext: true where the network itself is encrypted"
	case strings.Contains(text, "No such master"):
		return "correct sentinel.master: the Sentinels watch no master set of that name"
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"):
		if s.opts.Sentinel.Master != "" { // which of the two refused, the answer does not tell
			return "correct username and password, or sentinel.username and sentinel.password, which are for the Sentinels"
		}
		return "correct username and password"
	case strings.Contains(text, "NOPERM"):
		return "give the user what docs/operations.md lists for it"
	case strings.Contains(text, "unknown command"):
		return "use Redis 6.2 or later, or Valkey"
	case strings.Contains(text, "cluster support disabled"):
		return "remove cluster: true"
	case strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"):
		return "if the server speaks TLS at this port, set tls"
	}
	return "start the server, or correct addresses"
}

// settings are a server's, of INFO and CONFIG GET. What it did not tell is absent.
type settings map[string]string

func (m settings) number(name string) int {
	n, _ := strconv.Atoi(m[name])
	return n
}

// server judges one master.
func (i *inspection) server(ctx context.Context, addr string, client rueidis.Client) {
	m := settings{}
	info, err := i.s.asked(ctx, client, client.B().Info().Build())[0].ToString()
	if err != nil {
		i.unwise(addr+": INFO may not be asked, so that version and replicas could not be checked", "allow it to the user, or look for yourself: Redis 6.2 or later is needed")
	}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	if err == nil {
		i.version(addr, m)
		i.role(addr, m)
	}
	hidden := i.configure(ctx, client, m)
	if len(hidden) > 0 {
		i.unwise(addr+": CONFIG GET may not be asked, so that "+strings.Join(hidden, ", ")+" could not be checked", "look for yourself: docs/operations.md says what they should be")
	}
	i.eviction(addr, m)
	i.durability(addr, m)
	if err == nil {
		i.replicas(addr, m)
	}
}

var inspected = []string{"maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save", "min-replicas-to-write"}

// configure adds what CONFIG GET tells, and returns what it does not.
func (i *inspection) configure(ctx context.Context, client rueidis.Client, m settings) (hidden []string) {
	var cmds []rueidis.Completed
	for _, name := range inspected { // one by one: several at once are for Redis 7
		cmds = append(cmds, client.B().ConfigGet().Parameter(name).Build())
	}
	for n, answer := range i.s.asked(ctx, client, cmds...) {
		values, err := answer.AsStrMap()
		value, ok := values[inspected[n]]
		if err != nil || !ok {
			delete(m, inspected[n])
			hidden = append(hidden, inspected[n])
			continue
		}
		m[inspected[n]] = value
	}
	return hidden
}

func (i *inspection) version(addr string, m settings) {
	name, version := "Redis", m["redis_version"]
	if v := m["valkey_version"]; v != "" {
		name, version = "Valkey", v
	}
	var major, minor int
	if _, err := fmt.Sscanf(m["redis_version"], "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 2 {
		i.wrong(fmt.Sprintf("%s: %s %s", addr, name, version), "use Redis 6.2 or later, or Valkey")
		return
	}
	i.good("%s: %s %s", addr, name, version)
}

func (i *inspection) role(addr string, m settings) {
	if m["role"] == "slave" {
		i.wrong(addr+": it is a replica, which takes no writes", "name its master in addresses, or the Sentinels and sentinel.master")
	}
	if m["redis_mode"] == "cluster" && !i.s.opts.Cluster {
		i.wrong(addr+": it is a node of a Cluster", "set cluster: true")
	}
}

func (i *inspection) eviction(addr string, m settings) {
	policy, known := m["maxmemory-policy"]
	switch {
	case !known:
	case policy == "noeviction":
		i.good("%s: maxmemory-policy noeviction: when memory runs out, logins are refused and nobody is logged out", addr)
	case m["maxmemory"] == "0":
		i.unwise(addr+": maxmemory-policy "+policy+" would log users out at random, were there a maxmemory", "set maxmemory-policy noeviction")
	default:
		i.wrong(addr+": maxmemory-policy "+policy+" logs users out at random when memory runs out, and forgets logouts", "set maxmemory-policy noeviction")
	}
}

// durability tells what a crash of the server, or of its machine, takes back. A lost
// write may be a logout that is undone, or a rotated refresh token.
func (i *inspection) durability(addr string, m settings) {
	copies := i.s.opts.WaitReplicas > 0
	switch {
	case m["appendonly"] == "":
	case m["appendonly"] == "no" && m["save"] == "":
		i.unwise(addr+": appendonly no: a restart of the server logs everybody out", "set appendonly yes")
	case m["appendonly"] == "no":
		i.unwise(addr+": appendonly no: a restart of the server brings back an old snapshot, with sessions that were logged out and refresh tokens that are spent", "set appendonly yes")
	case m["appendfsync"] == "always":
		i.good("%s: appendfsync always: what was acknowledged outlives a crash of the machine", addr)
	case m["appendfsync"] == "everysec" && copies:
		i.good("%s: appendfsync everysec, and wait_replicas %d: what was acknowledged outlives a crash of the machine, on a replica", addr, i.s.opts.WaitReplicas)
	case m["appendfsync"] == "everysec":
		i.unwise(addr+": appendfsync everysec: a crash of the machine takes back the last second, logouts and rotated refresh tokens too", "set appendfsync always, or wait_replicas: 1 with replicas")
	case m["appendfsync"] != "":
		i.unwise(addr+": appendfsync "+m["appendfsync"]+": a crash of the machine takes back half a minute, logouts and rotated refresh tokens too", "set appendfsync always, or everysec")
	}
}

// replicas tells what a failover takes back.
func (i *inspection) replicas(addr string, m settings) {
	have, wait, least := m.number("connected_slaves"), i.s.opts.WaitReplicas, m.number("min-replicas-to-write")
	switch {
	case have < wait:
		i.wrong(fmt.Sprintf("%s: it has %d replicas, and wait_replicas is %d: every login, refresh and logout fails", addr, have, wait), "start replicas, or lower wait_replicas")
		return
	case have < least:
		i.wrong(fmt.Sprintf("%s: it has %d replicas, and min-replicas-to-write is %d: it takes no writes", addr, have, least), "start replicas, or lower min-replicas-to-write")
		return
	case have == 0 && (i.s.opts.Cluster || i.s.opts.Sentinel.Master != ""):
		i.unwise(addr+": it has no replica, and nothing to fail over to", "start a replica")
		return
	case have == 0:
		return
	}
	if wait > 0 {
		i.good("%s: %d replicas, and wait_replicas %d: what was acknowledged outlives a failover to one of those that have it", addr, have, wait)
	} else {
		i.unwise(fmt.Sprintf("%s: %d replicas, and wait_replicas 0: a failover may take back the last writes, logouts and rotated refresh tokens too", addr, have), "set wait_replicas: 1")
	}
	if _, known := m["min-replicas-to-write"]; known && least == 0 {
		i.unwise(addr+": min-replicas-to-write 0: a master that is cut off goes on for those who still reach it", "set min-replicas-to-write 1 and min-replicas-max-lag 10")
	}
}

// try does what the gateway does, with a key that nobody else has.
func (i *inspection) try(ctx context.Context) {
	var key session.Key
	rand.Read(key[:])
	begun := time.Now()
	err := i.s.Once(ctx, key, i.s.opts.now().Add(time.Second))
	took := time.Since(begun)
	if err == nil {
		var lease session.Lease
		if lease, err = i.s.Acquire(ctx, key, time.Second); err == nil {
			err = i.s.Release(ctx, lease)
		}
	}
	if err == nil {
		if _, err = i.s.Load(ctx, key); errors.Is(err, session.ErrAbsent) {
			err = nil
		}
	}
	if err != nil {
		i.wrong("it cannot be used: "+err.Error(), i.s.remedy(err))
		return
	}
	i.good("reads, writes and scripts work, a write in %v", took.Round(10*time.Microsecond))
}

// clocks are compared: of a Cluster, with that of one node.
func (i *inspection) clocks(ctx context.Context) {
	skew, err := i.s.ClockSkew(ctx)
	if err != nil {
		i.wrong(err.Error(), i.s.remedy(err))
		return
	}
	by := skew.Abs().Round(time.Millisecond)
	const fix = "set both by NTP"
	switch {
	case skew.Abs() > apart:
		i.wrong(fmt.Sprintf("the clocks of this machine and of the server differ by %v", by), fix)
	case skew.Abs() > alike:
		i.unwise(fmt.Sprintf("the clocks of this machine and of the server differ by %v", by), fix)
	default:
		i.good("the clocks of this machine and of the server differ by less than %v", alike)
	}
}
