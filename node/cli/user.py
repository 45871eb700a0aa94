"""``echonode user``: who may use the HTTP door. Passwords never stand on a command line."""

from __future__ import annotations

import getpass
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    cell,
    print_json,
    print_table,
    print_text,
    say,
    settings_of,
)
from node.cli.telling import audit_of

if TYPE_CHECKING:
    from node.web.users import User, UserError, UserFile

commands = typer.Typer(help="Users of the HTTP door, their roles and tokens.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the user.")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the password from a file, or from - (stdin)."),
]
GenerateOption = Annotated[
    bool, typer.Option("--generate", help="Make a password, and print it this once.")
]


@commands.command()
def add(
    context: typer.Context,
    name: NameArgument,
    role: Annotated[list[str], typer.Option(help="send, read or operate; may be repeated.")],
    password_file: PasswordFileOption = None,
    generate: GenerateOption = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For programs: tokens alone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a user. The password is asked for, read from a file, or made."""
    from node.web.users import UserError

    roles = _roles(role)
    users = _file(context)
    password = None if no_password else _password(password_file, generate=generate)
    try:
        user = users.add(name, roles, password)
    except UserError as error:
        _failed(error)
    _tell(context, f"added: {', '.join(sorted(user.roles))}", name)
    if as_json:
        print_json({**_json(user), "generated_password": password if generate else None})
        return
    print_text(f"user {name} may {', '.join(sorted(user.roles))}")
    if generate:
        print_text(f"password: {password}")


@commands.command("list")
def list_users(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the users with their roles and tokens."""
    from node.web.users import UserError

    try:
        found = [user for _, user in sorted(_file(context).users().items())]
    except UserError as error:
        _failed(error)
    if as_json:
        print_json([_json(user) for user in found])
        return
    print_table(
        "Users",
        ("name", "roles", "password", "made", "tokens"),
        [
            (
                user.name,
                ", ".join(sorted(user.roles)),
                user.password is not None,
                user.made_at,
                "; ".join(
                    f"{token.id} {token.note}".strip()
                    + ("" if token.ends_at is None else f" until {cell(token.ends_at)}")
                    for token in user.tokens
                )
                or "-",
            )
            for user in found
        ],
        long=("tokens",),
    )


@commands.command()
def remove(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a user and all tokens, at once."""
    from node.web.users import UserError

    try:
        _file(context).remove(name)
    except UserError as error:
        _failed(error)
    _tell(context, "removed", name)
    if as_json:
        print_json({"removed": name})
    else:
        print_text(f"user {name} is removed")


@commands.command()
def password(
    context: typer.Context,
    name: NameArgument,
    password_file: PasswordFileOption = None,
    generate: GenerateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a user another password."""
    from node.web.users import UserError

    users = _file(context)
    new = _password(password_file, generate=generate)
    try:
        users.set_password(name, new)
    except UserError as error:
        _failed(error)
    _tell(context, "another password", name)
    if as_json:
        print_json({"name": name, "generated_password": new if generate else None})
        return
    print_text(f"user {name} has another password")
    if generate:
        print_text(f"password: {new}")


@commands.command()
def token(
    context: typer.Context,
    name: NameArgument,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="It ends after so many days.")
    ] = None,
    remove_id: Annotated[
        str | None, typer.Option("--remove", metavar="ID", help="Remove this one instead.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token for a user and print it, this once; or remove one."""
    from node.web.users import UserError

    users = _file(context)
    try:
        if remove_id is not None:
            users.remove_token(name, remove_id)
            made = None
        else:
            made = users.add_token(name, note, days)
    except UserError as error:
        _failed(error)
    _tell(context, f"token {remove_id} removed" if made is None else "token added", name)
    if as_json:
        print_json({"name": name, "token": made, "removed": remove_id})
    elif made is None:
        print_text(f"token {remove_id} of user {name} is removed")
    else:
        say("note: this token is shown once; keep it where only its program can read it")
        print_text(made)


def _file(context: typer.Context) -> UserFile:
    from node.web.users import UserFile

    settings = settings_of(context)
    return UserFile(settings.http.users_file or settings.data_dir / "users.json")


def _roles(names: list[str]) -> list[Any]:
    from node.web.users import Role

    try:
        return [Role(part) for name in names for part in name.split(",")]
    except ValueError:
        raise Problem(f"--role is one of: {', '.join(Role)}", ExitCode.USAGE) from None


def _password(file: Path | None, *, generate: bool) -> str:
    from node.secrets import SecretError, read_secret

    if generate:
        return secrets.token_urlsafe(18)
    if file is not None and str(file) != "-":
        try:
            return read_secret(file, "the password")
        except SecretError as error:
            raise Problem(str(error)) from error
    if file is not None or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("password: ")
    if getpass.getpass("once more: ") != first:
        raise Problem("the two are not the same")
    return first


def _tell(context: typer.Context, what: str, name: str) -> None:
    """Tell the audit trail; the change is made whether that can be written or not."""
    with audit_of(settings_of(context)) as told:
        if told is not None:
            audit, user = told
            audit.users_changed(user, what, name)


def _failed(error: UserError) -> NoReturn:
    from node.web.users import NoSuchUserError

    missing = isinstance(error, NoSuchUserError)
    raise Problem(str(error), ExitCode.NOT_FOUND if missing else ExitCode.FAILED) from error


def _json(user: User) -> dict[str, Any]:
    """Without a hash: those are of no use to a reader."""
    return {
        "name": user.name,
        "roles": sorted(user.roles),
        "password": user.password is not None,
        "made_at": user.made_at,
        "tokens": [
            {"id": token.id, "note": token.note, "made_at": token.made_at, "ends_at": token.ends_at}
            for token in user.tokens
        ],
    }
