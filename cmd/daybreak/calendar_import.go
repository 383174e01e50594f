package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) calendarImportCommand() *cobra.Command {
	var blackouts bool
	c := &cobra.Command{
		Use: "import NAME FILE", Short: "Add the days of a file to a calendar's holidays",
		Long: `Import adds the dates that a file lists to the calendar's own holidays, or to its blackout days, and shows what is new.
Days that are there already stay as they are, so a file can be imported again. Days before last year are left out.

The file is an .ics calendar, of which the all-day events count; or a .csv or .txt file with a line "date,name" or just
"date" for each day, such as the holidays that Japan's Cabinet Office publishes, in UTF-8 or Shift_JIS. Dates are written
2026-11-23, 2026/11/23, 2026年11月23日, 令和8年11月23日 or R8.11.23. A later 'apply' of a file puts that file's lists in
place of what was imported: 'daybreak get calendar NAME -o yaml' prints what to keep.

Events that repeat are listed from last year to the end of the fifth year to come. Import their file again before that year
is over: 'describe calendar' says until when holidays are listed, and 'calendar preview' warns where it shows later ones.`,
		Example: `  daybreak calendar import office syukujitsu.csv
  daybreak calendar import office closing-days.ics --blackouts`,
		Args: exactly("NAME", "FILE"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.names(c.Context(), v1.Kind_KIND_CALENDAR), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				return a.importDays(c.Context(), conn, args[0], args[1], blackouts)
			})
		},
	}
	c.Flags().BoolVar(&blackouts, "blackouts", false, "add to the blackout days, on which nothing is changed, not to the holidays")
	return c
}

// repeatYears is how many years after this one events that repeat are written down for: until then their law may well have
// changed, and a list can be looked through.
const repeatYears = 5

// readDays reads a file by its name's ending. Of .csv and .txt only the days are known.
func readDays(path string, within calendar.Within) (found calendar.ICS, err error) {
	ending := strings.ToLower(filepath.Ext(path))
	if ending != ".ics" && ending != ".csv" && ending != ".txt" {
		return found, wrongUsage("%s: want a file whose name ends in .ics, .csv or .txt", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return found, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, calendar.MaxFileBytes+1))
	if err != nil {
		return found, fmt.Errorf("read %s: %w", path, err)
	}
	if ending == ".ics" {
		found, err = calendar.ReadICS(text, within)
	} else {
		found.Days, err = calendar.ReadCSV(text)
	}
	if err != nil {
		return found, fmt.Errorf("read %s: %w", path, err)
	}
	return found, nil
}

func (a *app) importDays(ctx context.Context, conn grpc.ClientConnInterface, name, path string, blackouts bool) error {
	found, resolved, err := fetchCalendar(ctx, conn, name)
	if err != nil {
		return err
	}
	year := time.Now().In(resolved.Zone()).Year()
	since, until := calendar.Date{Year: year - 1, Month: time.January, Day: 1}, calendar.Date{Year: year + repeatYears, Month: time.December, Day: 31}
	read, err := readDays(path, calendar.Within{From: since, To: until, Zone: resolved.Zone()})
	if err != nil {
		return err
	}
	list, what := &found.GetSpec().Holidays, "holiday"
	if blackouts {
		list, what = &found.GetSpec().Blackouts, "blackout day"
	}
	have := map[string]bool{}
	for _, day := range *list {
		have[day.GetDate()] = true
	}
	var added []*v1.CalendarDay
	known, old := 0, 0
	for _, day := range read.Days {
		switch {
		case day.Date.Compare(since) < 0:
			old++
		case have[day.Date.String()]:
			known++
		default:
			added = append(added, &v1.CalendarDay{Date: day.Date.String(), Name: day.Name})
		}
	}
	done := "unchanged"
	if len(added) > 0 {
		done = "changed"
		*list = append(*list, added...)
		// The calendar carries its revision: what somebody else wrote in between is not written over.
		if _, err := v1.NewObjectServiceClient(conn).Apply(ctx, &v1.ApplyRequest{Object: wrap(found)}); err != nil {
			return err
		}
	}
	for _, day := range added {
		fmt.Fprintln(a.out, show.Clean(strings.TrimSpace("+ "+day.GetDate()+" "+day.GetName())))
	}
	said := fmt.Sprintf("%s added, %d there already", several(len(added), what), known)
	if old > 0 {
		said += fmt.Sprintf(", %s before %v left out", several(old, "day"), since)
	}
	if read.Timed > 0 {
		said += fmt.Sprintf(", %s with a time of day left out", several(read.Timed, "event"))
	}
	if read.GoesOn {
		said += fmt.Sprintf("; what repeats is listed until %v: import again in the course of %d", until, until.Year)
	}
	fmt.Fprintf(a.out, "calendar/%s %s: %s\n", name, done, said)
	return nil
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
