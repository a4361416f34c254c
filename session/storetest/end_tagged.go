package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

var endTaggedRows = []row{
	{"every session with the tag ends and no other", func(t *testing.T, s session.Store) {
		tag, otherTag := random[session.Tag](), random[session.Tag]()
		rec := record(otherTag, tag)
		keys := createMany(t, s, 3, rec)
		other, untagged := create(t, s, record(otherTag)), create(t, s, record())

		endings, err := s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.BackChannel, rec.Binding, keys...)
		for _, key := range keys {
			wantGone(t, s, key, session.BackChannel)
		}
		load(t, s, other)
		load(t, s, untagged)
	}},
	{"no session with the tag is no error", func(t *testing.T, s session.Store) {
		create(t, s, record(random[session.Tag]()))
		endings, err := s.EndTagged(t.Context(), random[session.Tag](), session.BackChannel, session.Scope{})
		if err != nil || len(endings) != 0 {
			t.Errorf("EndTagged = %v, %v, want nothing", endings, err)
		}
	}},
	{"those listed in except live on and keep their tag", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 5, rec)
		spared := append([]session.Key{random[session.Key]()}, keys[3:]...)
		endings, err := s.EndTagged(t.Context(), tag, session.Replaced, session.Scope{Except: spared})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Replaced, rec.Binding, keys[:3]...)
		load(t, s, keys[3])
		load(t, s, keys[4])
		if endings, err = s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Logout, rec.Binding, keys[3:]...)
	}},
	// BC-06: a logout token that is sent again ends nobody's next session.
	{"those whose login began then or later live on and keep their tag", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		var keys [4]session.Key
		for i, after := range []time.Duration{-time.Hour, -time.Millisecond, 0, time.Millisecond} {
			rec.Began = ago(time.Minute).Add(after)
			keys[i] = create(t, s, rec)
		}
		sc := session.Scope{BeganBefore: ago(time.Minute)}
		wantEndings(t, endTagged(t, s, tag, session.BackChannel, sc), session.BackChannel, rec.Binding, keys[:2]...)
		for _, key := range keys[:2] {
			wantGone(t, s, key, session.BackChannel)
		}
		for _, key := range keys[2:] {
			load(t, s, key)
		}
		wantEndings(t, endTagged(t, s, tag, session.BackChannel, sc), "", rec.Binding)
		wantEndings(t, endTagged(t, s, tag, session.Revoked, session.Scope{}), session.Revoked, rec.Binding, keys[2:]...)
	}},
	{"a session of whose login nobody knows the begin is not spared for it", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		rec.Began = time.Time{}
		key := create(t, s, rec)
		endings := endTagged(t, s, tag, session.BackChannel, session.Scope{BeganBefore: ago(time.Hour)})
		wantEndings(t, endings, session.BackChannel, rec.Binding, key)
	}},
	{"either part of a scope spares a session", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		early, late := record(tag), record(tag)
		early.Began, late.Began = ago(time.Hour), ago(time.Minute)
		ends, listed := create(t, s, early), create(t, s, early)
		began, both := create(t, s, late), create(t, s, late)
		endings := endTagged(t, s, tag, session.Revoked, session.Scope{
			Except:      []session.Key{listed, both},
			BeganBefore: ago(time.Minute),
		})
		wantEndings(t, endings, session.Revoked, early.Binding, ends)
		for _, key := range []session.Key{listed, began, both} {
			load(t, s, key)
		}
	}},
	{"thousands of which many are spared, and the first and last of them all, end but for those", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		ending, late := record(tag), record(tag)
		ending.Began, late.Began = ago(time.Hour), ago(time.Minute)
		spared := createMany(t, s, 600, late)
		for i, keys := range [][]session.Key{make([]session.Key, 600), make([]session.Key, 600)} {
			for j := range keys {
				keys[j] = random[session.Key]()
				keys[j][0] = byte(0xff * i) // before all others, and after
			}
			createAll(t, s, keys, late)
			spared = append(spared, keys...)
		}
		listed, over := createMany(t, s, 30, ending), createMany(t, s, 1200, ending)
		endings := endTagged(t, s, tag, session.BackChannel, session.Scope{Except: listed, BeganBefore: ago(time.Minute)})
		wantEndings(t, endings, session.BackChannel, ending.Binding, over...)
		for _, key := range append(spared, listed...) {
			load(t, s, key)
		}
	}},
	{"one broken off half way tells what it ended", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 3000, rec)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go cancelWhenFewer(ctx, cancel, s, len(keys))
		endings, err := s.EndTagged(ctx, tag, session.Revoked, session.Scope{})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("EndTagged: error = %v, want %v", err, context.Canceled)
		}
		wantToldOf(t, s, endings, session.Revoked, rec.Binding, keys, err == nil)
	}},
	{"the tags of a session that ended lead nowhere", func(t *testing.T, s session.Store) {
		byEnd, byTag, bySweep := random[session.Tag](), random[session.Tag](), random[session.Tag]()
		end(t, s, create(t, s, record(byEnd)), session.Logout)
		create(t, s, record(byTag, random[session.Tag]()))
		if _, err := s.EndTagged(t.Context(), byTag, session.Logout, session.Scope{}); err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		rec := record(bySweep)
		rec.Expires = now.Add(-time.Second)
		create(t, s, rec)
		sweep(t, s, limits)
		for _, tag := range []session.Tag{byEnd, byTag, bySweep} {
			endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
			if err != nil || len(endings) != 0 {
				t.Errorf("EndTagged = %v, %v, want nothing", endings, err)
			}
		}
	}},
	{"a tag given twice ends its session once", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag, tag)
		key := create(t, s, rec)
		endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Revoked, rec.Binding, key)
	}},
	{"a tag of more than a thousand sessions ends them all", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 1201, rec)
		endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{Except: []session.Key{keys[0]}})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Revoked, rec.Binding, keys[1:]...)
		load(t, s, keys[0])
	}},
	{"a session that several end at once is told of once", func(t *testing.T, s session.Store) {
		one, other := random[session.Tag](), random[session.Tag]()
		rec := record(one, other)
		keys := createMany(t, s, 50, rec)
		told := make([][]session.Ending, 8)
		parallel(len(told), func(i int) {
			var err error
			if told[i], err = s.EndTagged(t.Context(), []session.Tag{one, other}[i%2], session.Revoked, session.Scope{}); err != nil {
				t.Errorf("EndTagged: %v", err)
			}
		})
		var all []session.Ending
		for _, endings := range told {
			all = append(all, endings...)
		}
		wantEndings(t, all, session.Revoked, rec.Binding, keys...)
	}},
}
