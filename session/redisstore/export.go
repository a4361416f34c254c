package redisstore

import (
	"cmp"
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
// claims, and then sessions. It fails if they were not the same from begin to end.
func (s *Store) Export(ctx context.Context, f func([]session.Item) error) error {
	masters, err := s.masters(ctx)
	if err != nil {
		return err
	}
	// Each by one connection: on the next there may be another server, or the same
	// after a restart, to which the cursor of a SCAN means another place.
	for i, m := range masters {
		masters[i].conn, _ = m.client.Dedicate()
		defer masters[i].conn.Close() // given back it would be cleaned, by commands that the user may not use
	}
	before, err := s.holders(ctx, masters)
	if err != nil {
		return err
	}
	for _, kinds := range [][]string{{"mark", "once"}, {"session"}} {
		for _, m := range masters {
			if err := s.scan(ctx, m.conn, kinds, f); err != nil {
				return err
			}
		}
	}
	after, err := s.holders(ctx, masters)
	if err != nil {
		return err
	}
	if !slices.Equal(before, after) {
		return unknown("export", errHolders)
	}
	return nil
}

var (
	errHolders = errors.New("other servers have the sessions now than when it began, and some may have been missed: export it again")
	errLost    = errors.New("the connection was lost half way: export it again")
	errOnWay   = errors.New("slots are on their way to other nodes, and sessions may be missed: export it again when they have arrived")
)

// holders tells who has what, in words that are the same only as long as nobody took
// over from anybody. All of those that have something have to be among the masters.
func (s *Store) holders(ctx context.Context, masters []master) ([]string, error) {
	switch {
	case s.opts.Cluster:
		return s.slotHolders(ctx, masters)
	case s.opts.Sentinel.Master == "":
		return nil, nil
	}
	role, err := s.answered(ctx, masters[0].conn, masters[0].conn.B().Role().Build())[0].ToArray()
	if err != nil || len(role) == 0 {
		return nil, unknown("export", cmp.Or(err, errAnswer))
	}
	name, err := role[0].ToString()
	if err != nil {
		return nil, unknown("export", err)
	}
	now, err := s.masters(ctx)
	if err != nil {
		return nil, err
	}
	return []string{name, now[0].addr}, nil
}

// slotHolders is holders of a Cluster.
func (s *Store) slotHolders(ctx context.Context, masters []master) ([]string, error) {
	asked, holding := map[string]bool{}, map[string]bool{}
	var all []string
	for _, m := range masters {
		table, err := s.answered(ctx, m.conn, m.conn.B().ClusterNodes().Build())[0].ToString()
		if err != nil {
			return nil, unknown("export", err)
		}
		for line := range strings.Lines(strings.TrimPrefix(table, "txt:")) { // RESP3 tells what text it is
			// id, address, flags, master, ping, pong, epoch, link, and the slots.
			fields := strings.Fields(line)
			if len(fields) < 8 {
				return nil, unknown("export", errAnswer)
			}
			id, flags, epoch, slots := fields[0], fields[2], fields[6], fields[8:]
			if len(slots) > 0 {
				holding[id] = true
			}
			if !slices.Contains(strings.Split(flags, ","), "myself") {
				continue
			}
			asked[id] = true
			if slices.ContainsFunc(slots, func(slot string) bool { return strings.HasPrefix(slot, "[") }) {
				return nil, unknown("export", errOnWay)
			}
			all = append(all, fmt.Sprint(id, flags, epoch, slots))
		}
	}
	for id := range holding {
		if !asked[id] {
			return nil, unknown("export", errHolders)
		}
	}
	return all, nil
}

// master is a server that holds something: its replicas hold the same.
type master struct {
	addr   string
	client rueidis.Client
	conn   rueidis.DedicatedClient // of Export
}

func (s *Store) masters(ctx context.Context) ([]master, error) {
	client, err := s.link.get()
	if err != nil {
		return nil, unknown("export", err)
	}
	if !s.opts.Cluster {
		m := master{addr: s.opts.Addresses[0], client: client}
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
			all = append(all, master{addr: addr, client: node})
		}
	}
	slices.SortFunc(all, func(a, b master) int { return strings.Compare(a.addr, b.addr) })
	return all, nil
}

// asked is what one server answers within the time-out.
func (s *Store) asked(ctx context.Context, server rueidis.CoreClient, cmds ...rueidis.Completed) []rueidis.RedisResult {
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

// answered is what is answered on the one connection of an export.
func (s *Store) answered(ctx context.Context, conn rueidis.DedicatedClient, cmds ...rueidis.Completed) []rueidis.RedisResult {
	answers := s.asked(ctx, conn, cmds...)
	for i, a := range answers {
		if err := a.NonRedisError(); err != nil && err != errSilent && ctx.Err() == nil {
			answers[i] = rueidis.NewErrorResult(fmt.Errorf("%w (%w)", errLost, err))
		}
	}
	return answers
}

// scan walks the names of one server.
func (s *Store) scan(ctx context.Context, server rueidis.DedicatedClient, kinds []string, f func([]session.Item) error) error {
	// What the prefix holds is no pattern.
	pattern := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `^`, `\^`).Replace(s.layout.prefix) + "{*"
	var cursor uint64
	for {
		entry, err := s.answered(ctx, server, server.B().Scan().Cursor(cursor).Match(pattern).Count(session.ExportPage).Build())[0].AsScanEntry()
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
func (s *Store) items(ctx context.Context, server rueidis.DedicatedClient, names []name) ([]session.Item, error) {
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
	answers := s.answered(ctx, server, cmds...)
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
	if err := cmp.Or(err1, err2, err3); err != nil {
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
