%% OTP's side of the measuring: gen_servers on the far node, `!` and gen_server:call/3.
%%
%% Both nodes run this file; otp/src/main.rs starts them. It is also their epmd module: each writes
%% its port into a file of the directory that both share, so no daemon is left behind. The loops are
%% those of meter/src/measure.rs, and so is the report.
-module(otp).
-behaviour(gen_server).
-export([far/0, near/0, brief/0, watcher/2, start_sinks/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([start_link/0, register_node/2, register_node/3, port_please/2, port_please/3,
         address_please/3, listen_port_please/2, names/1]).

-define(SMALL, 64).
-define(BULK, (8 bsl 20)).

%% --- the far side ---

far() ->
    persistent_term:put(total, counters:new(1, [write_concurrency])),
    io:format("ready~n"),
    until_the_end().

%% The near side of the pipe is the runner: when it ends, so do we.
until_the_end() ->
    case io:get_line("") of
        eof -> halt(0, [{flush, false}]);
        {error, _} -> halt(0, [{flush, false}]);
        _ -> until_the_end()
    end.

start_sinks(Count) ->
    [begin {ok, Pid} = gen_server:start(?MODULE, [], []), Pid end || _ <- lists:seq(1, Count)].

init([]) -> {ok, 0}.

handle_info({slow, _}, Count) ->
    timer:sleep(1),
    {noreply, Count};
handle_info({item, _}, Count) ->
    counters:add(persistent_term:get(total), 1, 1),
    {noreply, Count + 1}.

handle_call({echo, Bytes}, _, Count) -> {reply, Bytes, Count};
handle_call(count, _, Count) -> {reply, Count, Count};
handle_call(total, _, Count) -> {reply, counters:get(persistent_term:get(total), 1), Count}.

handle_cast(_, Count) -> {noreply, Count}.

brief() -> ok.

%% --- the near side ---

near() ->
    spawn(fun until_the_end/0),
    Far = list_to_atom(os:getenv("METER_FAR")),
    true = net_kernel:connect_node(Far),
    Length = round(list_to_float(os:getenv("METER_SECONDS")) * 1.0e6),
    Name = os:getenv("METER_TASK"),
    {Metrics, Sent, Received, Cpu} = run(string:split(Name, "-", all), Far, Length),
    Shown = [io_lib:format("{\"name\":\"~s\",\"value\":~p,\"unit\":\"~ts\"}", [N, V * 1.0, U])
             || {N, V, U} <- Metrics],
    io:format("{\"done\":{\"workload\":\"~s\",\"metrics\":[~ts],\"sent\":~p,\"received\":~p,"
              "\"cpu_ns_per_msg\":~s}}~n",
              [Name, lists:join(",", Shown), Sent, Received, Cpu]),
    halt(0, [{flush, true}]).

run(["round", "trip"], Far, Length) ->
    [Sink] = sinks(Far, 1),
    echo(Sink, warm(Length)),
    Before = cpu(Far),
    Times = echo(Sink, Length),
    N = length(Times),
    {quantiles(Times), N, N, cpu(Far, Before, N)};
run(["one", "way", Size, Pairs], Far, Length) ->
    Bytes = size_of(Size),
    Sinks = sinks(Far, list_to_integer(Pairs)),
    stream_all(Sinks, Bytes, warm(Length)),
    Before = cpu(Far),
    {Sent, Received, Took} = stream_all(Sinks, Bytes, Length),
    Rate = Received * 1.0e6 / Took,
    Messages = {"rate", Rate, "msg/s"},
    Volume = {"bytes", Rate * Bytes / 1.0e6, "MB/s"},
    Metrics = if Bytes < 65536 -> [Messages, Volume]; true -> [Volume, Messages] end,
    {Metrics, Sent, Received, cpu(Far, Before, Received)};
run(["calls", Callers], Far, Length) ->
    N = list_to_integer(Callers),
    Sinks = sinks(Far, min(N, 64)),
    call_all(Sinks, N, warm(Length)),
    Before = cpu(Far),
    {Done, Took} = call_all(Sinks, N, Length),
    {[{"rate", Done * 1.0e6 / Took, "calls/s"}], Done, Done, cpu(Far, Before, Done)};
run(["beside", "bulk" | Both], Far, Length) ->
    [Sink | Others] = sinks(Far, 3),
    echo(Sink, warm(Length)),
    Begun = now_us(),
    Message = message(?BULK),
    Streams = case Both of
        [] -> [start(fun() -> send_bulk(hd(Others), Message, 0) end)];
        ["both"] -> [start(fun() -> call_bulk(Other, Message, 0) end) || Other <- Others]
    end,
    timer:sleep(300),
    Before = cpu(Far),
    Times = echo(Sink, Length),
    [Pid ! stop || {Pid, _} <- Streams],
    N = length(Times),
    Cpu = cpu(Far, Before, N),
    [Middle | Rest] = quantiles(Times),
    Bulk = lists:sum([wait(Stream) || Stream <- Streams]) * ?BULK / (now_us() - Begun),
    {Rest ++ [Middle, {"bulk", Bulk, "MB/s"}], N, N, Cpu};
run(["overload"], Far, Length) ->
    [Slow, Sink] = sinks(Far, 2),
    echo(Sink, warm(Length)),
    Small = memory(Far),
    Begun = now_us(),
    Message = message(?SMALL),
    Flood = start(fun() -> flood(Slow, {slow, Message}, 0) end),
    timer:sleep(300),
    Before = cpu(Far),
    Times = echo(Sink, Length),
    element(1, Flood) ! stop,
    Flooded = wait(Flood) * 1.0e6 / (now_us() - Begun),
    Grown = (memory(Far) - Small) / 1.0e6,
    N = length(Times),
    [Middle | Rest] = quantiles(Times),
    {Rest ++ [Middle, {"memory of both, grown by", Grown, "MB"}, {"flood", Flooded, "msg/s"}],
     N, N, cpu(Far, Before, N)};
run(["monitors"], Far, _) ->
    N = 100000,
    [Sink] = sinks(Far, 1),
    Os = erpc:call(Far, os, getpid, []),
    Self = self(),
    [spawn(?MODULE, watcher, [Sink, Self]) || _ <- lists:seq(1, N)],
    [receive armed -> ok end || _ <- lists:seq(1, N)],
    timer:sleep(2000),
    Killed = now_us(),
    os:cmd("kill -9 " ++ Os),
    %% Each says when it was told: with one scheduler this process has its turn after all of them.
    Downs = [receive {down, At} -> At end || _ <- lists:seq(1, N)],
    {First, Last} = {lists:min(Downs), lists:max(Downs)},
    {[{"first to last notice", (Last - First) / 1000, "ms"},
      {"kill -9 noticed", (First - Killed) / 1000, "ms"}], N, N, "null"};
run(["spawn", "exit"], Far, Length) ->
    spawn_exit(Far, now_us() + warm(Length), []),
    Times = spawn_exit(Far, now_us() + Length div 2, []),
    {Before, Begun} = {cpu(Far), now_us()},
    End = Begun + Length div 2,
    Loops = [start(fun() -> length(spawn_exit(Far, End, [])) end) || _ <- lists:seq(1, 64)],
    Done = lists:sum([wait(Loop) || Loop <- Loops]),
    Took = now_us() - Begun,
    [Middle, Most, _] = quantiles(Times),
    {[{"rate, 64 at once", Done * 1.0e6 / Took, "/s"}, Middle, Most],
     Done, Done, cpu(Far, Before, Done)};
run(["fan", "out"], Far, Length) ->
    Sinks = sinks(Far, 10000),
    Base = gen_server:call(hd(Sinks), total, infinity),
    fan_out(Sinks, message(1024), now_us() + warm(Length), Base, []),
    {Before, Next, Begun} =
        {cpu(Far), gen_server:call(hd(Sinks), total, infinity), now_us()},
    Times = fan_out(Sinks, message(1024), Begun + Length, Next, []),
    Took = now_us() - Begun,
    N = length(Times) * 10000,
    [{_, Middle, Unit} | _] = quantiles(Times),
    {[{"rate", N * 1.0e6 / Took, "msg/s"}, {"one fan-out, p50", Middle, Unit}],
     N, N, cpu(Far, Before, N)}.

watcher(Sink, Tell) ->
    Reference = monitor(process, Sink),
    Tell ! armed,
    receive {'DOWN', Reference, process, _, _} -> Tell ! {down, now_us()} end.

echo(Sink, Length) -> echo(Sink, message(?SMALL), now_us() + Length, []).

echo(Sink, Message, End, Times) ->
    Begun = erlang:monotonic_time(nanosecond),
    if
        Begun div 1000 >= End -> Times;
        true ->
            Message = gen_server:call(Sink, {echo, Message}, infinity),
            echo(Sink, Message, End, [erlang:monotonic_time(nanosecond) - Begun | Times])
    end.

stream_all(Sinks, Bytes, Length) ->
    Begun = now_us(),
    End = Begun + Length,
    Message = message(Bytes),
    Every = if Bytes < 65536 -> 64; true -> 1 end,
    Streams = [start(fun() -> stream(Sink, Message, Every, End) end) || Sink <- Sinks],
    Counts = [wait(Stream) || Stream <- Streams],
    Took = lists:max([Last || {_, _, Last} <- Counts]) - Begun,
    {lists:sum([S || {S, _, _} <- Counts]), lists:sum([R || {_, R, _} <- Counts]), Took}.

%% A sender waits by itself when the connection is busy.
stream(Sink, Message, Every, End) ->
    Base = gen_server:call(Sink, count, infinity),
    Sent = stream(Sink, Message, Every, End, 0),
    Got = gen_server:call(Sink, count, infinity) - Base,
    {Sent, Got, now_us()}.

stream(Sink, Message, Every, End, Sent) ->
    case now_us() < End of
        true ->
            send(Sink, {item, Message}, Every),
            stream(Sink, Message, Every, End, Sent + Every);
        false -> Sent
    end.

send(_, _, 0) -> ok;
send(Sink, Item, N) -> Sink ! Item, send(Sink, Item, N - 1).

call_all(Sinks, Callers, Length) ->
    Begun = now_us(),
    End = Begun + Length,
    Message = message(?SMALL),
    Tuple = list_to_tuple(Sinks),
    Sink = fun(N) -> element(N rem tuple_size(Tuple) + 1, Tuple) end,
    Loops = [start(fun() -> calls(Sink(N), Message, End, 0) end) || N <- lists:seq(1, Callers)],
    Done = lists:sum([wait(Loop) || Loop <- Loops]),
    {Done, now_us() - Begun}.

calls(Sink, Message, End, Done) ->
    case now_us() < End of
        true ->
            Message = gen_server:call(Sink, {echo, Message}, infinity),
            calls(Sink, Message, End, Done + 1);
        false -> Done
    end.

send_bulk(Sink, Message, Sent) ->
    receive stop -> gen_server:call(Sink, count, infinity)
    after 0 -> Sink ! {item, Message}, send_bulk(Sink, Message, Sent + 1)
    end.

flood(Sink, Item, Sent) ->
    receive stop -> Sent
    after 0 -> send(Sink, Item, 64), flood(Sink, Item, Sent + 64)
    end.

%% Bytes that both nodes have in memory.
memory(Far) ->
    lists:sum([begin
        {ok, Text} = file:read_file("/proc/" ++ Os ++ "/statm"),
        [_, Pages | _] = string:lexemes(Text, " "),
        binary_to_integer(Pages) * 4096
    end || Os <- [os:getpid(), erpc:call(Far, os, getpid, [])]]).

call_bulk(Sink, Message, Done) ->
    receive stop -> Done
    after 0 ->
        Message = gen_server:call(Sink, {echo, Message}, infinity),
        call_bulk(Sink, Message, Done + 1)
    end.

spawn_exit(Far, End, Times) ->
    case now_us() < End of
        true ->
            Begun = erlang:monotonic_time(nanosecond),
            {_, Reference} = spawn_monitor(Far, ?MODULE, brief, []),
            receive {'DOWN', Reference, process, _, normal} -> ok end,
            spawn_exit(Far, End, [erlang:monotonic_time(nanosecond) - Begun | Times]);
        false -> Times
    end.

fan_out(Sinks, Message, End, Base, Times) ->
    case now_us() < End of
        true ->
            Begun = erlang:monotonic_time(nanosecond),
            Item = {item, Message},
            lists:foreach(fun(Sink) -> Sink ! Item end, Sinks),
            Expected = Base + length(Sinks),
            confirmed(hd(Sinks), Expected),
            Took = erlang:monotonic_time(nanosecond) - Begun,
            fan_out(Sinks, Message, End, Expected, [Took | Times]);
        false -> Times
    end.

confirmed(Sink, Expected) ->
    case gen_server:call(Sink, total, infinity) of
        Expected -> ok;
        _ -> confirmed(Sink, Expected)
    end.

%% --- small things ---

sinks(Far, Count) -> erpc:call(Far, ?MODULE, start_sinks, [Count]).

start(Body) -> spawn_monitor(fun() -> exit({value, Body()}) end).

wait({Pid, Reference}) ->
    receive {'DOWN', Reference, process, Pid, {value, Value}} -> Value end.

now_us() -> erlang:monotonic_time(microsecond).

warm(Length) -> max(Length div 3, 200000).

message(Bytes) -> binary:copy(<<7>>, Bytes).

size_of("64b") -> 64;
size_of("1k") -> 1024;
size_of("64k") -> 65536;
size_of("1m") -> 1048576.

quantiles(Times) ->
    Sorted = list_to_tuple(lists:sort(Times)),
    N = tuple_size(Sorted),
    At = fun(Share) -> element(min(N * Share div 1000 + 1, N), Sorted) / 1000 end,
    [{"p50", At(500), "us"}, {"p99", At(990), "us"}, {"p99.9", At(999), "us"}].

%% CPU time of both nodes so far, in ns, as the kernel counts it for each of their threads.
cpu(Far) ->
    {spent(os:getpid()), spent(erpc:call(Far, os, getpid, []))}.

spent(Os) ->
    Threads = filelib:wildcard("/proc/" ++ Os ++ "/task/*/schedstat"),
    lists:sum([begin
        {ok, Text} = file:read_file(Thread),
        [Ns | _] = string:lexemes(Text, " "),
        binary_to_integer(Ns)
    end || Thread <- Threads]).

cpu(Far, {Near, There}, N) ->
    {Near1, There1} = cpu(Far),
    Each = fun(Ns) -> Ns / max(N, 1) end,
    io_lib:format("{\"client\":~p,\"server\":~p}", [Each(Near1 - Near), Each(There1 - There)]).

%% --- the epmd module ---

start_link() -> ignore.

register_node(Name, Port) -> register_node(Name, Port, inet).

register_node(Name, Port, _) ->
    ok = prim_file:write_file(port_file(Name), integer_to_list(Port)),
    {ok, erlang:phash2({Name, os:getpid()}, 3) + 1}.

port_please(Name, Host) -> port_please(Name, Host, infinity).

port_please(Name, _, _) ->
    case prim_file:read_file(port_file(Name)) of
        {ok, Port} -> {port, binary_to_integer(Port), 6};
        _ -> noport
    end.

address_please(_, _, _) -> {ok, {127, 0, 0, 1}}.

listen_port_please(_, _) -> {ok, 0}.

names(_) -> {error, address}.

%% The file server does not run yet when the distribution starts: hence prim_file.
port_file(Name) when is_atom(Name) -> port_file(atom_to_list(Name));
port_file(Name) -> filename:join(os:getenv("METER_HOME"), "port." ++ Name).
