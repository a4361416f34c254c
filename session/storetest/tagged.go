package storetest

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

func tagged(t *testing.T, s session.Store, tag session.Tag, after session.Key, limit int) []session.Listed {
	t.Helper()
	listed, err := s.Tagged(t.Context(), tag, after, limit)
	if err != nil {
		t.Fatalf("Tagged: %v", err)
	}
	return listed
}

func keysOf(listed []session.Listed) []session.Key {
	var keys []session.Key
	for _, l := range listed {
		keys = append(keys, l.Key)
	}
	return keys
}

func sorted(keys []session.Key) []session.Key {
	return slices.SortedFunc(slices.Values(keys), func(a, b session.Key) int { return bytes.Compare(a[:], b[:]) })
}

// wantListed wants exactly these sessions of a tag, at most a few thousand.
func wantListed(t *testing.T, s session.Store, tag session.Tag, keys ...session.Key) {
	t.Helper()
	if got := keysOf(tagged(t, s, tag, session.Key{}, 5000)); !slices.Equal(got, sorted(keys)) {
		t.Errorf("Tagged = %x, want %x", got, sorted(keys))
	}
}

var taggedRows = []row{
	{"every session with the tag is listed, in order, and no other", func(t *testing.T, s session.Store) {
		tag, otherTag := random[session.Tag](), random[session.Tag]()
		keys := createMany(t, s, 20, record(tag))
		both, other := create(t, s, record(otherTag, tag)), create(t, s, record(otherTag))
		create(t, s, record())
		wantListed(t, s, tag, append(keys, both)...)
		wantListed(t, s, otherTag, both, other)
	}},
	{"a tag that no session carries lists none", func(t *testing.T, s session.Store) {
		create(t, s, record(random[session.Tag]()))
		wantListed(t, s, random[session.Tag]())
	}},
	{"a session is listed as it is, but for its data", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(random[session.Tag](), tag)
		key := create(t, s, rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		touch(t, s, key, now)
		rec.Version, rec.Used, rec.Data = 2, now, nil
		listed := tagged(t, s, tag, session.Key{}, 10)
		if len(listed) != 1 || listed[0].Key != key {
			t.Fatalf("Tagged = %x, want %x", keysOf(listed), key)
		}
		wantRecord(t, listed[0].Record, rec)
	}},
	{"each session is listed with its own record", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		want := map[session.Key]session.Record{}
		for i := range 20 {
			rec := began(ago(time.Duration(i)*time.Minute), tag)
			rec.Listing = bytes.Repeat([]byte{byte(i)}, i)
			key := create(t, s, rec)
			rec.Version, rec.Data = 1, nil
			want[key] = rec
		}
		for _, l := range tagged(t, s, tag, session.Key{}, 20) {
			wantRecord(t, l.Record, want[l.Key])
		}
	}},
	{"a session that ran out by the clock is still listed", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		rec.Created, rec.Used, rec.Expires = ago(9*time.Hour), ago(2*time.Hour), ago(time.Minute)
		wantListed(t, s, tag, create(t, s, rec))
	}},
	{"a session that ended, however it did, is not listed", func(t *testing.T, s session.Store) {
		tag, group := random[session.Tag](), random[session.Tag]()
		tired := record(tag)
		tired.Used = ago(idle)
		create(t, s, tired)
		create(t, s, record(tag, group))
		lives := create(t, s, record(tag))
		end(t, s, create(t, s, record(tag)), session.Logout)
		endTagged(t, s, group, session.Revoked, session.Scope{})
		sweep(t, s, limits)
		wantListed(t, s, tag, lives)
		wantListed(t, s, group)
	}},
	{"a session that was never created is not listed", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		key := create(t, s, record())
		wantError(t, "Create", s.Create(t.Context(), key, record(tag)), session.ErrExists)
		wantListed(t, s, tag)
	}},
	{"a session that has the tag twice is listed once", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		wantListed(t, s, tag, create(t, s, record(tag, tag)))
	}},
	{"pages of any size have every session once, in order", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		keys := sorted(createMany(t, s, 24, record(tag)))
		for _, limit := range []int{1, 5, 8, 23, 24, 25, 1000} {
			var all []session.Key
			var after session.Key
			for {
				page := keysOf(tagged(t, s, tag, after, limit))
				if want := min(limit, len(keys)-len(all)); len(page) != want {
					t.Fatalf("a page of %d after %d sessions has %d, want %d", limit, len(all), len(page), want)
				}
				if len(page) == 0 {
					break
				}
				all = append(all, page...)
				after = page[len(page)-1]
			}
			if !slices.Equal(all, keys) {
				t.Errorf("pages of %d: %x, want %x", limit, all, keys)
			}
		}
	}},
	{"a page begins after a key, whether there is such a session or not", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		keys := sorted(createMany(t, s, 10, record(tag)))
		ended, elsewhere := keys[3], create(t, s, record(random[session.Tag]()))
		end(t, s, ended, session.Logout)
		live := slices.Delete(slices.Clone(keys), 3, 4)
		last := session.Key(bytes.Repeat([]byte{0xff}, 32))
		for _, after := range append(slices.Clone(keys), session.Key{}, last, elsewhere, random[session.Key]()) {
			want := slices.DeleteFunc(slices.Clone(live), func(key session.Key) bool { return bytes.Compare(key[:], after[:]) <= 0 })
			if got := keysOf(tagged(t, s, tag, after, 100)); !slices.Equal(got, want) {
				t.Errorf("Tagged after %x = %x, want %x", after, got, want)
			}
		}
	}},
	{"a page without room lists none", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		create(t, s, record(tag))
		if got := tagged(t, s, tag, session.Key{}, 0); len(got) != 0 {
			t.Errorf("Tagged = %x, want nothing", keysOf(got))
		}
	}},
	{"a page may have thousands", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		wantListed(t, s, tag, createMany(t, s, 1201, record(tag))...)
	}},
	{"what was listed belongs to the caller", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag, random[session.Tag]())
		rec.Listing = bytes.Repeat([]byte("abcdefgh"), 1000) // no store keeps it in a corner
		key := create(t, s, rec)
		kept := tagged(t, s, tag, session.Key{}, 1)
		for range 2 { // the second time from any cache
			scribble(tagged(t, s, tag, session.Key{}, 1)[0].Record)
		}
		for round := range 20 {
			if err := s.Replace(t.Context(), key, uint64(round+1), bytes.Repeat([]byte{byte(round)}, 500*round)); err != nil {
				t.Fatalf("Replace: %v", err)
			}
			create(t, s, record(tag))
		}
		endTagged(t, s, tag, session.Logout, session.Scope{Except: []session.Key{key}})
		listed := tagged(t, s, tag, session.Key{}, 2)
		if len(listed) != 1 || listed[0].Key != key {
			t.Fatalf("Tagged = %x, want %x", keysOf(listed), key)
		}
		rec.Data, rec.Version = nil, 21
		wantRecord(t, listed[0].Record, rec)
		end(t, s, key, session.Logout)
		rec.Version = 1
		wantRecord(t, kept[0].Record, rec)
	}},
	{"pages while sessions come and go have every session that lives throughout once", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		stay := createMany(t, s, 300, record(tag))
		var over atomic.Bool
		parallel(5, func(i int) {
			if i == 0 {
				defer over.Store(true)
				for range 20 {
					walkPages(t, s, tag, stay)
				}
				return
			}
			for !over.Load() {
				key := random[session.Key]()
				if err := s.Create(t.Context(), key, record(tag)); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
					t.Errorf("End: %v", err)
					return
				}
			}
		})
	}},
}

// walkPages walks all pages of a tag and wants those who stay to be listed once.
func walkPages(t *testing.T, s session.Store, tag session.Tag, stay []session.Key) {
	missing := map[session.Key]bool{}
	for _, key := range stay {
		missing[key] = true
	}
	var after session.Key
	for {
		page, err := s.Tagged(t.Context(), tag, after, 7)
		if err != nil {
			t.Errorf("Tagged: %v", err)
			return
		}
		for _, l := range page {
			if bytes.Compare(l.Key[:], after[:]) <= 0 {
				t.Errorf("%x is listed after %x", l.Key[:4], after[:4])
			}
			after = l.Key
			delete(missing, l.Key)
		}
		if len(page) < 7 {
			break
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d sessions were not listed", len(missing), len(stay))
	}
}
