package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/api/pki"
	"daybreak/cmd/clientconfig"
	"daybreak/cmd/daybreak/show"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/identity"
	"daybreak/proto/jointoken"
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Let hosts and people join", a.tokenCreateCommand())
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var host, user, role, format string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "create --host NAME | --user NAME --role ROLE",
		Short: "Make a token with which one host or person gets a certificate, once",
		Long: `The token is printed alone on standard output, and never shown again. It works once, until it expires.

Roles: a viewer may look; an operator may also claim, release and take screenshots; an admin may do everything.`,
		Example: `  daybreak token create --host kvm1 > kvm1.token
  daybreak token create --user hanako --role operator --ttl 15m`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			request, err := tokenRequest(host, user, role, ttl)
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewAdminServiceClient(conn).CreateToken(c.Context(), request)
				if err != nil {
					return err
				}
				if format == formatJSON {
					return printJSON(a.out, answer)
				}
				fmt.Fprintf(a.errs, "for %s, once, until %s\n", request.GetSubject(), show.Moment(time.Now(), answer.GetExpires()))
				return a.say(answer.GetToken(), nil)
			})
		},
	}
	c.Flags().StringVar(&host, "host", "", "name of the host that may join")
	c.Flags().StringVar(&user, "user", "", "name of the person that may log in")
	c.Flags().StringVar(&role, "role", "", "the person's role: admin, operator or viewer")
	lengthFlag(c.Flags(), &ttl, "ttl", time.Hour, "how long the token can be used, at most 24h")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"admin", "operator", "viewer"}, cobra.ShellCompDirectiveNoFileComp))
	formatFlag(c, &format, "", formatJSON)
	return c
}

func tokenRequest(host, user, role string, ttl time.Duration) (*v1.CreateTokenRequest, error) {
	request := &v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST, Subject: host, Ttl: durationpb.New(ttl)}
	if (host == "") == (user == "") {
		return nil, wrongUsage("want --host NAME, or --user NAME with --role")
	}
	if host != "" {
		if role != "" {
			return nil, wrongUsage("--role is for people, not for hosts")
		}
		return request, nil
	}
	request.Subject = user
	switch role {
	case "admin":
		request.Role = v1.Role_ROLE_ADMIN
	case "operator":
		request.Role = v1.Role_ROLE_OPERATOR
	case "viewer":
		request.Role = v1.Role_ROLE_VIEWER
	default:
		return nil, wrongUsage("--role wants admin, operator or viewer, found %q", role)
	}
	return request, nil
}

func (a *app) loginCommand() *cobra.Command {
	var token, name string
	c := &cobra.Command{
		Use:   "login ADDRESS --name NAME --token TOKEN",
		Short: "Trade a token for a certificate, and keep it as a context",
		Long: `Login makes a key, gets a certificate for it, and writes both to the configuration as a context, which becomes the
current one; --context names it, else it is NAME@ADDRESS. The token tells the right control plane from any other before its secret is sent. A token given as an
argument can be seen by other users of this machine while the command runs: --token - reads it from standard input.`,
		Example: `  daybreak login cp.example.jp:7443 --name hanako --token dbk1.…
  daybreak login cp.example.jp:7443 --name hanako --token - < token`,
		Args: exactly("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" || token == "" {
				return wrongUsage("--name and --token are needed; an administrator makes tokens with 'daybreak token create --user NAME --role ROLE'")
			}
			contextName := a.contextName
			if contextName == "" {
				contextName = name + "@" + args[0]
			}
			if token == "-" {
				text, err := io.ReadAll(io.LimitReader(a.in, 1024))
				if err != nil {
					return fmt.Errorf("read token: %w", err)
				}
				token = string(text)
			}
			parsed, err := jointoken.Parse(token)
			if err != nil {
				return err
			}
			return a.login(c.Context(), args[0], parsed, name, contextName)
		},
	}
	c.Flags().StringVar(&token, "token", "", "the token, or - to read it from standard input")
	c.Flags().StringVar(&name, "name", "", "your name, as the token has it")
	return c
}

func (a *app) login(ctx context.Context, address string, token jointoken.Token, name, contextName string) error {
	// The configuration first: a token is good for one try.
	path, err := a.path()
	if err != nil {
		return err
	}
	config, err := clientconfig.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		config, err = &clientconfig.Config{}, os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(path), ".login-*")
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	defer os.RemoveAll(scratch)
	id, err := identity.Enrol(ctx, scratch, address, token, name)
	if err != nil {
		return &callError{server: address, err: err}
	}
	certificate, key, cas, err := id.PEM()
	if err != nil {
		return err
	}
	config.Set(clientconfig.Context{Name: contextName, Server: address, CA: string(cas), Cert: string(certificate), Key: string(key)})
	config.Current = contextName
	if err := config.Save(path); err != nil {
		return err
	}
	_, until := id.Validity()
	fmt.Fprintf(a.out, "logged in to %s as %s until %s; context %s in %s is current\n",
		address, name, show.Time(until.Local()), contextName, path)
	return nil
}

func (a *app) contextCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the contexts", Example: "  daybreak context list", Args: none,
		RunE: func(*cobra.Command, []string) error {
			config, _, err := a.load()
			if err != nil {
				return err
			}
			t := show.Table{Header: []string{"CURRENT", "NAME", "SERVER", "AS", "ROLE", "CERTIFICATE ENDS"}}
			for _, c := range config.Contexts {
				t.Rows = append(t.Rows, contextRow(c, c.Name == config.Current))
			}
			return show.NewWriter(a.out).Table(t)
		},
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "  daybreak context use hanako@cp.example.jp:7443",
		Args: exactly("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			config, path, err := a.load()
			if err != nil {
				return err
			}
			if _, err := config.Pick(args[0]); err != nil {
				return err
			}
			config.Current = args[0]
			return a.say("context "+args[0]+" is current", config.Save(path))
		},
	}
	current := &cobra.Command{
		Use: "show", Short: "Show the context in use, and what its server says", Example: "  daybreak context show", Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			picked, err := a.context()
			if err != nil {
				return err
			}
			row := contextRow(picked, true)
			fmt.Fprintf(a.out, "Context:           %s\nServer:            %s\nAs:                %s (%s)\nCertificate ends:  %s\n", row[1], row[2], row[3], row[4], row[5])
			return a.withConn(func(conn *grpc.ClientConn) error {
				info, err := v1.NewAdminServiceClient(conn).Info(c.Context(), &v1.InfoRequest{})
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "Cluster:           %s, epoch %d, revision %d\nServer's version:  %s\n", info.GetClusterId(), info.GetClusterEpoch(), info.GetRevision(), info.GetVersion())
				if info.GetLeader() != "" {
					fmt.Fprintf(a.out, "Leader:            %s\n", info.GetLeader())
				}
				return nil
			})
		},
	}
	return group("context", "Choose between several control planes", list, use, current)
}

func contextRow(c clientconfig.Context, current bool) []string {
	row := []string{"", c.Name, c.Server, "?", "?", "?"}
	if current {
		row[0] = "*"
	}
	cert, err := leaf(c)
	if err != nil {
		row[5] = err.Error()
		return row
	}
	row[5] = show.Time(cert.NotAfter.Local())
	if who, err := pki.IdentityOf(cert); err == nil {
		row[3], row[4] = who.Name, strings.ToLower(pki.RoleName(who.Role))
	}
	return row
}

func (a *app) completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if config, _, err := a.load(); err == nil && len(args) == 0 {
		for _, c := range config.Contexts {
			names = append(names, c.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) versionCommand() *cobra.Command {
	var client bool
	c := &cobra.Command{
		Use: "version", Short: "Show the versions of this program and of the control plane",
		Example: "  daybreak version\n  daybreak version --client", Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintf(a.out, "daybreak   %s\n", version())
			if client {
				return nil
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				info, err := v1.NewAdminServiceClient(conn).Info(c.Context(), &v1.InfoRequest{})
				return a.say("daybreakd  "+info.GetVersion(), err)
			})
		},
	}
	c.Flags().BoolVar(&client, "client", false, "only this program's")
	return c
}
