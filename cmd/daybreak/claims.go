package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// againPace is how long a wait whose line broke takes a breath before it goes on: less than a place in the queue is kept.
const againPace = time.Second

// leaveTime bounds the call that gives a place in the queue up.
const leaveTime = 3 * time.Second

func (a *app) claimCommand() *cobra.Command {
	var user, requestID, format string
	var noWait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "claim POOL --user USER",
		Short: "Give a ready desktop of a pool to a user",
		Long: `Claim binds a ready desktop to the user; who holds one already gets the same again, and one that was suspended or shut
down wakes. When none is ready the user gets a place in the pool's queue; claim shows the place and waits until the desktop
is ready. Whoever interrupts it leaves the queue; when the line breaks the place is kept for about a minute.

A script that may have to ask twice gives its call a --request-id of its own: repeated with the same one, claim gives the
desktop that it gave before, and fails when that was released meanwhile, where it would take another without.`,
		Example: `  daybreak claim sales --user hanako
  daybreak claim sales --user 花子 --no-wait -o json
  id=$(uuidgen); until daybreak claim sales --user hanako --request-id "$id"; do sleep 5; done`,
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: who gets the desktop?")
			}
			request := &v1.ClaimRequest{Pool: args[0], User: user, RequestId: cmp.Or(requestID, uuid.NewString())}
			return a.withConn(func(conn *grpc.ClientConn) error {
				claim := func() (*v1.Desktop, error) {
					return a.claimAndWait(c.Context(), conn, request, requestID == "", timeout)
				}
				if noWait {
					claim = func() (*v1.Desktop, error) {
						answer, err := v1.NewClaimServiceClient(conn).Claim(c.Context(), request)
						return answer.GetDesktop(), err
					}
				}
				desktop, err := claim()
				if err != nil {
					return err
				}
				if format != "" {
					return a.printObjects(v1.Kind_KIND_DESKTOP, []store.Object{desktop}, format, true)
				}
				return a.say(lentLine(desktop, user), nil)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "who gets the desktop")
	c.Flags().StringVar(&requestID, "request-id", "", "what makes a repeated call known, at most 64 characters, a new one for each claim; made up when it is left out")
	c.Flags().BoolVar(&noWait, "no-wait", false, "fail at once when no desktop is ready, and do not wait for one that wakes")
	lengthFlag(c.Flags(), &timeout, "timeout", 10*time.Minute, "how long to wait for a ready desktop")
	formatFlag(c, &format, "", formatTable, formatWide, formatJSON, formatYAML)
	return c
}

// lentLine says what the user got.
func lentLine(desktop *v1.Desktop, user string) string {
	state := store.State(desktop)
	text := fmt.Sprintf("%s is %s's now: ", desktop.GetMeta().GetName(), show.Clean(user))
	switch {
	case state == v1.DesktopState_DESKTOP_STATE_READY && desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY:
		text += "ready"
	case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		text += "waking"
	case state < v1.DesktopState_DESKTOP_STATE_READY:
		text += "starting"
	case store.Broken(state):
		text += "failed, and made anew once it is released"
	case state == v1.DesktopState_DESKTOP_STATE_LOST:
		text += "not ready, since its host is not heard from,"
	default:
		text += "not ready any more"
	}
	if host := desktop.GetIncarnation().GetHost(); host != "" {
		text += " on host " + host
	}
	return text
}

// claimAndWait claims and waits until the desktop is ready. When the line breaks it waits again with the same request: the
// user has one place in the queue whatever the line does, and gives it up when the wait is interrupted or its time is over.
// own says that no other call has the request's id.
func (a *app) claimAndWait(ctx context.Context, conn *grpc.ClientConn, request *v1.ClaimRequest, own bool, timeout time.Duration) (*v1.Desktop, error) {
	// Not a deadline, which would go to the server with the call, and whose end would look like the server's.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer time.AfterFunc(timeout, func() { cancel(errTimeout) }).Stop()
	progress := newProgress(a.errs)
	defer progress.done()
	last := &v1.WaitResponse{}
	for {
		err := waitOnce(ctx, conn, request, func(word *v1.WaitResponse) {
			if last = word; word.GetDesktop() == nil || !isReady(word.GetDesktop()) {
				progress.show("waiting: " + waitLine(word, time.Now()))
			}
		})
		if err == nil {
			return last.GetDesktop(), nil
		}
		if ctx.Err() != nil && last.GetDesktop() == nil && (own || last.GetPosition() > 0) { // else it may be somebody's at work
			progress.done()
			a.leaveQueue(ctx, conn, request)
		}
		switch {
		case errors.Is(context.Cause(ctx), errTimeout):
			text := ""
			if last.GetMessage() != "" {
				text = ": " + last.GetMessage()
			}
			if last.GetDesktop() != nil {
				return nil, fmt.Errorf("%s has a desktop of pool %q, which is not ready after %s%s", request.GetUser(), request.GetPool(), rules.Duration(timeout), text)
			}
			return nil, fmt.Errorf("no desktop of pool %q for %s after %s%s", request.GetPool(), request.GetUser(), rules.Duration(timeout), text)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case status.Code(err) != codes.Unavailable || last.GetMessage() == "": // before anything was heard the address may be wrong
			return nil, err
		}
		progress.show("the line to the control plane broke (" + status.Convert(err).Message() + "); trying again")
		select {
		case <-ctx.Done():
		case <-time.After(againPace):
		}
	}
}

// leaveQueue gives up the place that a request has, if it has one, after ctx ended. The server cannot tell a user who went from a
// line that broke, and would keep the place.
func (a *app) leaveQueue(ctx context.Context, conn *grpc.ClientConn, request *v1.ClaimRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	_, err := v1.NewClaimServiceClient(conn).Release(ctx, &v1.ReleaseRequest{Pool: request.GetPool(), User: request.GetUser(), RequestId: request.GetRequestId()})
	if err != nil && status.Code(err) != codes.NotFound {
		fmt.Fprintf(a.errs, "the control plane did not hear that %s waits no more (%s); the place in the queue is kept for a minute and a half at most\n",
			show.Clean(request.GetUser()), status.Convert(err).Message())
	}
}

// waitOnce is one call of Wait; nil when the last message had the desktop.
func waitOnce(ctx context.Context, conn *grpc.ClientConn, request *v1.ClaimRequest, hear func(*v1.WaitResponse)) error {
	stream, err := v1.NewClaimServiceClient(conn).Wait(ctx, request)
	if err != nil {
		return err
	}
	for {
		word, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		hear(word)
	}
}

func isReady(desktop *v1.Desktop) bool {
	return store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY && desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY
}

// waitLine is how far a wait is, in one line.
func waitLine(word *v1.WaitResponse, now time.Time) string {
	text := word.GetMessage()
	if at := word.GetExpected(); at != nil {
		text += fmt.Sprintf("; expected at %s, in %s", at.AsTime().Local().Format("15:04:05 MST"), show.Span(at.AsTime().Sub(now).Round(time.Second)))
	}
	return text
}

func (a *app) keepCommand() *cobra.Command {
	var user string
	var busy time.Duration
	c := &cobra.Command{
		Use:   "keep POOL --user USER --for DURATION",
		Short: "Say that a user's desktop is busy and not to be reclaimed",
		Long: `Keep leaves a held desktop alone for a time, however idle it looks: a long computation, a download over night. --for 0s takes
an earlier word back.`,
		Example:           "  daybreak keep sales --user hanako --for 2h",
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: whose desktop is busy?")
			}
			if !c.Flags().Changed("for") {
				return wrongUsage("--for is needed: how long is it busy? 0s takes an earlier word back")
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewClaimServiceClient(conn).Keep(c.Context(), &v1.KeepRequest{Pool: args[0], User: user, BusyFor: durationpb.New(busy)})
				if err != nil {
					return inFlags(err, map[string]string{"busyFor": "--for"})
				}
				name, until := answer.GetDesktop().GetMeta().GetName(), answer.GetDesktop().GetClaim().GetBusyUntil()
				if until == nil {
					return a.say(name+" is reclaimed again when it is idle, as the pool's policy says", nil)
				}
				return a.say(fmt.Sprintf("%s is left alone until %s", name, show.Time(until.AsTime().In(zoneOf(c.Context(), conn, args[0])))), nil)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whose desktop is busy")
	lengthFlag(c.Flags(), &busy, "for", 0, "how long, from now on, at most 30d")
	return c
}

func (a *app) releaseCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:               "release POOL --user USER",
		Short:             "End a user's claim",
		Long:              "Release takes the desktop back. What the user wrote on it, except on a data disk, is gone before anybody else gets it.",
		Example:           "  daybreak release sales --user hanako",
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: whose claim ends?")
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewClaimServiceClient(conn).Release(c.Context(), &v1.ReleaseRequest{Pool: args[0], User: user})
				said := answer.GetDesktop() + " released"
				if answer.GetDesktop() == "" {
					said = show.Clean(user) + " waits no more"
				}
				return a.say(said, err)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whose claim ends")
	return c
}

func (a *app) deferCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "defer POOL --user USER",
		Short: "Put off the restart that a user was told of",
		Long: `Defer puts off the restart for an update that was announced to a user, as often and by as much as the pool's policy
for desktops in use allows.`,
		Example:           "  daybreak defer sales --user hanako",
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: whose restart is put off?")
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewClaimServiceClient(conn).Defer(c.Context(), &v1.DeferRequest{Pool: args[0], User: user})
				if err != nil {
					return err
				}
				desktop, left := answer.GetDesktop(), "can be put off no more"
				switch n := answer.GetLeft(); {
				case n == 1:
					left = "can be put off once more"
				case n > 1:
					left = fmt.Sprintf("can be put off %d times more", n)
				}
				at := show.Time(desktop.GetClaim().GetRestartAt().AsTime().In(zoneOf(c.Context(), conn, args[0])))
				return a.say(fmt.Sprintf("%s will be restarted at %s; that %s", desktop.GetMeta().GetName(), at, left), nil)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whose restart is put off")
	return c
}
