package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

var png = append([]byte("\x89PNG\r\n\x1a\n"), 1, 2, 3)

type shot struct {
	png []byte
	err error
}

// screenshot asks while the story goes on.
func (h *house) screenshot(desktop string) <-chan shot {
	got := make(chan shot, 1)
	h.group.Go(func() error {
		picture, err := h.server.Screenshot(h.ctx, desktop)
		got <- shot{picture, err}
		return nil
	})
	synctest.Wait()
	return got
}

func (a *agent) answer(id string, answer *v1.AnswerRequest) error {
	answer.SessionId, answer.Id = a.session, id
	_, err := a.h.client.Answer(a.ctx, answer)
	return err
}

func TestScreenshot(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		put(h, newHost("h2"))
		d := put(h, newDesktop("sales-1", "h1", 10))
		a, _ := h.connect("h1", says(d, ready))
		thief, _ := h.connect("h2")
		got := h.screenshot("sales-1")
		ask := a.next().GetAsks()[0]
		if s := ask.GetScreenshot(); s.GetDesktop() != "sales-1" || s.GetGeneration() != 10 || ask.GetDeadline().AsTime().Sub(time.Now()) > 20*time.Second {
			t.Errorf("asked %v", ask)
		}
		if err := thief.answer(ask.GetId(), &v1.AnswerRequest{Png: []byte("forged")}); status.Code(err) != codes.NotFound {
			t.Errorf("another host's answer: %v", err)
		}
		if err := a.answer(ask.GetId(), &v1.AnswerRequest{Png: png}); err != nil {
			t.Error(err)
		}
		if s := <-got; s.err != nil || string(s.png) != string(png) {
			t.Errorf("got %q %v", s.png, s.err)
		}
		if err := a.answer(ask.GetId(), &v1.AnswerRequest{Png: png}); status.Code(err) != codes.NotFound {
			t.Errorf("second answer: %v", err)
		}

		got = h.screenshot("sales-1")
		if err := a.answer(a.next().GetAsks()[0].GetId(), &v1.AnswerRequest{Error: "no display"}); err != nil {
			t.Error(err)
		}
		if s := <-got; !errors.Is(s.err, ErrRefused) {
			t.Errorf("error of the host: %v", s.err)
		}
		got = h.screenshot("sales-1")
		if err := a.answer(a.next().GetAsks()[0].GetId(), &v1.AnswerRequest{Png: []byte("<svg>")}); err != nil {
			t.Error(err)
		}
		if s := <-got; !errors.Is(s.err, ErrRefused) {
			t.Errorf("what is no PNG: %v", s.err)
		}

		got = h.screenshot("sales-1")
		late := a.next().GetAsks()[0].GetId()
		began := time.Now()
		if s := <-got; !errors.Is(s.err, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
			t.Errorf("no answer: %v after %v", s.err, time.Since(began))
		}
		if err := a.answer(late, &v1.AnswerRequest{Png: png}); status.Code(err) != codes.NotFound {
			t.Errorf("late answer: %v", err)
		}
		got = h.screenshot("sales-1")
		a.next()
		a.hangUp()
		if s := <-got; !errors.Is(s.err, ErrUnreachable) {
			t.Errorf("session ended: %v", s.err)
		}
	})
}

func TestScreenshotRefused(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		put(h, newDesktop("new", "", 9))
		d1, d2 := put(h, newDesktop("up", "h1", 10)), put(h, newDesktop("off", "h1", 11))
		a, _ := h.connect("h1", says(d1, ready), says(d2, v1.DesktopState_DESKTOP_STATE_STOPPED))
		synctest.Wait()
		for name, want := range map[string]error{"none": store.ErrNotFound, "new": ErrNotRunning, "off": ErrNotRunning} {
			if _, err := h.server.Screenshot(h.ctx, name); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
		var waiting []<-chan shot
		for range maxHostAsks {
			waiting = append(waiting, h.screenshot("up"))
		}
		if _, err := h.server.Screenshot(h.ctx, "up"); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		a.hangUp()
		for _, w := range waiting {
			if s := <-w; !errors.Is(s.err, ErrUnreachable) {
				t.Errorf("session ended: %v", s.err)
			}
		}
		if _, err := h.server.Screenshot(h.ctx, "up"); !errors.Is(err, ErrUnreachable) {
			t.Errorf("no session: %v", err)
		}
		h.retire()
		synctest.Wait()
		if _, err := h.server.Screenshot(h.ctx, "up"); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("not leading: %v", err)
		}
	})
}

func TestCallBuild(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		put(h, newHost("h2"))
		a, _ := h.connect("h1")
		call := func(host string) <-chan error {
			got := make(chan error, 1)
			h.group.Go(func() error {
				got <- h.server.CallBuild(h.ctx, host, "build-1", &v1.BuildAsk{MemoryMib: 2048})
				return nil
			})
			synctest.Wait()
			return got
		}
		got := call("h1")
		ask := a.next().GetAsks()[0]
		if ask.GetId() != "build-1" || ask.GetBuild().GetMemoryMib() != 2048 {
			t.Errorf("asked %v", ask)
		}
		if err := a.answer("build-1", &v1.AnswerRequest{}); err != nil {
			t.Error(err)
		}
		if err := <-got; err != nil {
			t.Errorf("agreed to: %v", err)
		}
		got = call("h1")
		if err := a.answer(a.next().GetAsks()[0].GetId(), &v1.AnswerRequest{Error: "no room"}); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, ErrRefused) {
			t.Errorf("no room: %v", err)
		}
		if err := <-call("h2"); !errors.Is(err, ErrUnreachable) {
			t.Errorf("no session: %v", err)
		}
		got = call("h1")
		a.next()
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no answer: %v", err)
		}
		h.retire()
		synctest.Wait()
		if err := <-call("h1"); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("not leading: %v", err)
		}
	})
}
