package redisstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// Export gives f all that there is, as the servers come across it: once marks and
// claims, and then sessions.
func (s *Store) Export(ctx context.Context, f func([]session.Item) error) error {
	masters, err := s.masters(ctx)
	if err != nil {
		return err
	}
	for _, kinds := range [][]string{{"mark", "once"}, {"session"}} {
		for _, m := range masters {
			if err := s.scan(ctx, m.client, kinds, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// master is a server that holds something: its replicas hold the same.
type master struct {
	addr   string
	client rueidis.Client
}

func (s *Store) masters(ctx context.Context) ([]master, error) {
	client, err := s.link.get()
	if err != nil {
		return nil, unknown("export", err)
	}
	if !s.opts.Cluster {
		m := master{s.opts.Addresses[0], client}
		for m.addr = range client.Nodes() { // the one that Sentinels call the master
		}
		return []master{m}, nil
	}
	var all []master
	for addr, node := range client.Nodes() {
		role, err := s.asked(ctx, node, node.B().Role().Build())[0].ToArray()
		if err != nil || len(role) == 0 {
			return nil, unknown("export", fmt.Errorf("%s: %w", addr, errors.Join(err, errAnswer)))
		}
		if name, err := role[0].ToString(); err == nil && name == "master" {
			all = append(all, master{addr, node})
		}
	}
	slices.SortFunc(all, func(a, b master) int { return strings.Compare(a.addr, b.addr) })
	return all, nil
}

// asked is what one server answers within the time-out.
func (s *Store) asked(ctx context.Context, server rueidis.Client, cmds ...rueidis.Completed) []rueidis.RedisResult {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.Timeout, errSilent)
	defer cancel()
	answers := server.DoMulti(ctx, cmds...)
	for i, a := range answers {
		if a.NonRedisError() != nil {
			answers[i] = rueidis.NewErrorResult(ours(a.NonRedisError()))
		}
	}
	return answers
}

// scan walks the names of one server.
func (s *Store) scan(ctx context.Context, server rueidis.Client, kinds []string, f func([]session.Item) error) error {
	// What the prefix holds is no pattern.
	pattern := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `^`, `\^`).Replace(s.layout.prefix) + "{*"
	var cursor uint64
	for {
		entry, err := s.asked(ctx, server, server.B().Scan().Cursor(cursor).Match(pattern).Count(session.ExportPage).Build())[0].AsScanEntry()
		if err != nil {
			return unknown("export", err)
		}
		var names []name
		for _, element := range entry.Elements {
			if n, ok := s.layout.parse(element); ok && slices.Contains(kinds, n.kind) {
				names = append(names, n)
			}
		}
		for len(names) > 0 { // SCAN may return more than it was asked for
			some := names[:min(session.ExportPage, len(names))]
			names = names[len(some):]
			items, err := s.items(ctx, server, some)
			if err != nil {
				return err
			}
			if len(items) == 0 {
				continue
			}
			if err := f(items); err != nil {
				return err
			}
		}
		if cursor = entry.Cursor; cursor == 0 {
			return nil
		}
	}
}

// name is a name of a key, taken apart.
type name struct {
	whole, base, kind string
	key               session.Key
}

// parse reads the name of a session, a mark or a claim.
func (l layout) parse(whole string) (name, bool) {
	rest, ok := strings.CutPrefix(whole, l.prefix+"{")
	if !ok {
		return name{}, false
	}
	hash, rest, ok := strings.Cut(rest, "}:")
	if !ok {
		return name{}, false
	}
	n := name{whole: whole, base: whole[:len(whole)-len(rest)]}
	if rest == "mark" { // of a directory, which has each mark that there is
		tag, err := base64.RawURLEncoding.DecodeString(hash)
		if err != nil || len(tag) != len(n.key) {
			return name{}, false
		}
		n.kind, n.key = rest, session.Key(tag)
		return n, true
	}
	kind, id, ok := strings.Cut(rest, ":")
	if !ok || len(id) != len(n.key) {
		return name{}, false
	}
	if number, err := strconv.Atoi(hash); err != nil || number < 0 || number >= l.partitions {
		return name{}, false
	}
	n.kind, n.key = kind, session.Key([]byte(id))
	return n, true
}

// items reads what is behind names.
func (s *Store) items(ctx context.Context, server rueidis.Client, names []name) ([]session.Item, error) {
	ahead, err := s.ahead(ctx, "export")
	if err != nil {
		return nil, err
	}
	var cmds []rueidis.Completed
	for _, n := range names {
		cmds = append(cmds,
			server.B().Zscore().Key(n.base+"used").Member(string(n.key[:])).Build(),
			server.B().Pttl().Key(n.whole).Build(), server.B().Get().Key(n.whole).Build())
	}
	answers := s.asked(ctx, server, cmds...)
	now := s.opts.now()
	var items []session.Item
	for i, n := range names {
		item, ok, err := s.item(n, answers[3*i:3*i+3], ahead, now)
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, item)
		}
	}
	return items, nil
}

func (s *Store) item(n name, answers []rueidis.RedisResult, ahead time.Duration, now time.Time) (session.Item, bool, error) {
	used, err1 := answers[0].AsFloat64()
	if rueidis.IsRedisNil(err1) {
		err1 = nil
	}
	left, err2 := answers[1].ToInt64()
	value, err3 := answers[2].ToString()
	if rueidis.IsRedisNil(err3) {
		return session.Item{}, false, nil // it ran out meanwhile
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return session.Item{}, false, unknown("export", err)
	}
	item := session.Item{Key: n.key, Until: now.Add(time.Duration(max(left, 0)) * time.Millisecond)}
	switch n.kind {
	case "once":
		item.Claimed = true
		return item, true, nil
	case "mark":
		before, err := strconv.ParseUint(value[:min(20, len(value))], 10, 63)
		if err != nil || len(value) < 20 {
			return item, false, unknown("export", errDamaged)
		}
		item.Mark = &session.Mark{Reason: session.Reason(value[20:]), BeganBefore: moment(before), Until: item.Until}
		return item, true, nil
	}
	rec, err := s.decoded("export", value, used, ahead)
	var end *session.Ended
	switch {
	case errors.As(err, &end):
		item.Ended = end.Reason
	case err != nil:
		return item, false, err
	default:
		item.Record = &rec
	}
	return item, true, nil
}
