package hostagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Times of showing a notice to whoever sits at a desktop. It is best effort: nothing depends on it.
const (
	noticeTimeout = 20 * time.Second
	noticeAgain   = 15 * time.Second
	noticeTries   = 4
)

// noticeCommands are the ways to show a text in a guest, the best first: our images' own program, the usual one of Linux,
// that of Windows. Which system a guest has shows in which of them it knows. None goes through a shell.
func noticeCommands(text string) [][]string {
	return [][]string{
		{"/usr/lib/daybreak/notice", text},
		{"/usr/bin/wall", "--", text},
		{`C:\Windows\System32\msg.exe`, "*", text},
	}
}

// serve is what is done for a desktop that is ready.
func (s situation) serve(now time.Time) step {
	ready, look := v1.DesktopState_DESKTOP_STATE_READY, s.nextLook()
	untold := s.assignment.GetIncarnation().GetNotice().GetId() != s.noticed && s.assignment.GetIncarnation().GetNotice() != nil
	switch {
	case untold && !now.Before(s.nextTell):
		return s.in(ready, tell, "")
	case !now.Before(s.nextDescribe):
		return s.in(ready, describe, "")
	case !look.IsZero() && !now.Before(look):
		return s.in(ready, askUse, "")
	}
	next := s.in(ready, wait, "")
	next.until = earlier(s.nextDescribe, look)
	if untold {
		next.until = earlier(next.until, s.nextTell)
	}
	return next
}

// tell shows the life's notice, or gives it up after some tries. One that was being shown when the agent ended may be shown
// twice.
func (w *worker) tell(ctx context.Context, e entry, p *progress) error {
	notice := e.assignment.GetIncarnation().GetNotice()
	if p.telling != notice.GetId() {
		p.telling, p.tellings = notice.GetId(), 0
	}
	err := w.show(ctx, e.life, notice.GetText())
	if ctx.Err() != nil {
		return ctx.Err() // broken off, which says nothing about the guest
	}
	p.tellings++
	p.nextTell = time.Now().Add(noticeAgain)
	if err != nil && p.tellings < noticeTries {
		return err
	}
	if err != nil {
		w.agent.log.Warn().Err(err).Str("desktop", e.life.Desktop).Str("notice", notice.GetId()).Msg("the guest showed no notice")
	}
	return w.agent.book.notice(e.life, notice.GetId())
}

// show tries the ways to show a text until one works.
func (w *worker) show(ctx context.Context, life Life, text string) error {
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	var all error
	for _, argv := range noticeCommands(text) {
		status, output, err := w.agent.guest.Exec(ctx, life, argv)
		if err == nil && status == 0 {
			return nil
		}
		if err == nil {
			err = errors.New(exitWord(argv[0], status, cleanText(output, 128)))
		}
		all = errors.Join(all, err)
		if ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrTimeout) {
			break // it is not the program
		}
	}
	return fmt.Errorf("show notice: %w", all)
}

// notice keeps that a notice was shown, or given up.
func (b *book) notice(life Life, id string) error {
	if !b.readOnly() {
		err := b.kept(b.journal.join(func(tx journalTx) error { return tx.putNotice(keyOf(life), id) }))
		if err != nil {
			return err
		}
	}
	b.publish(life, func(e *entry) { e.noticed = id })
	return nil
}

func (m *memory) takeNotice(k, v []byte) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	id, err := unseal(v)
	if err != nil {
		return err
	}
	rec := m.lives[key]
	if rec == nil {
		return errors.New("no notice of a life")
	}
	rec.noticed = string(id)
	return nil
}
