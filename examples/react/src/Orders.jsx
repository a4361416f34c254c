import { useCallback, useEffect, useState } from "react";
import { bff } from "/bff/client.js";
import { answer, said } from "./answer.js";
import { Title } from "./route.jsx";

const money = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export function Orders({ feed }) {
  const [data, setData] = useState();
  const [problem, setProblem] = useState();

  const load = useCallback(async () => {
    try {
      const r = await bff.fetch("/api/orders");
      setData(await answer(r));
      setProblem();
    } catch (err) {
      setProblem(said(err));
    }
  }, []);
  useEffect(() => { load(); }, [load]);

  const place = async (order) => {
    // A popup, should a login be needed, keeps what was typed: the request is sent again with its body.
    const r = await bff.fetch("/api/orders", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(order),
      login: "popup",
    });
    const placed = await answer(r);
    setData((former) => ({ ...former, orders: [placed, ...former.orders.filter(({ id }) => id !== placed.id)] }));
  };

  const orders = data && merge(data.orders, feed.messages);
  return (
    <>
      <div className="head">
        <div>
          <Title>Orders</Title>
          <p className="soft">{orders ? summary(orders) : "Loading…"}</p>
        </div>
        <button onClick={load}>Refresh</button>
      </div>
      {problem && <p className="problem" role="alert">{problem} <button onClick={load}>Try again</button></p>}
      {data && <NewOrder onPlace={place} />}
      {orders && (
        <div className="card flush">
          <table>
            <caption className="unseen">Orders, newest first</caption>
            <thead>
              <tr>
                <th scope="col">Order</th>
                <th scope="col">Customer</th>
                <th scope="col">Item</th>
                <th scope="col">Placed</th>
                <th scope="col">Status</th>
                <th scope="col" className="number">Total</th>
              </tr>
            </thead>
            <tbody>
              {orders.map((order) => (
                <tr key={order.id} className={order.live ? "live" : undefined}>
                  <th scope="row">{order.id}</th>
                  <td data-label="Customer">{order.customer}</td>
                  <td data-label="Item">{order.item}</td>
                  <td data-label="Placed"><time dateTime={order.placed_at}>{day.format(new Date(order.placed_at))}</time></td>
                  <td data-label="Status"><Status of={order} /></td>
                  <td data-label="Total" className="number">{money.format(order.total)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {data && (
        <p className="fine">
          The API received an access token {data.caller.sub ? <>of subject <code>{data.caller.sub}</code></> : "it can’t read"}. This
          browser did not.
        </p>
      )}
    </>
  );
}

// Status is named by a word; its colour only repeats it.
export function Status({ of: order }) {
  return <span key={order.status} className={`status ${order.status}`}>{order.status}</span>;
}

// merge puts the feed's news over what was loaded.
function merge(orders, messages) {
  const news = new Map();
  for (const { order } of messages) if (!news.has(order.id)) news.set(order.id, { ...order, live: true });
  const known = new Set(orders.map(({ id }) => id));
  const placed = [...news.values()].filter(({ id }) => !known.has(id));
  return [...placed, ...orders.map((order) => newer(news.get(order.id), order))];
}

const newer = (one, other) => (one && one.updated_at > other.updated_at ? one : other);

function summary(orders) {
  const under = orders.filter(({ status }) => status !== "delivered").length;
  return `${orders.length} orders, ${under} under way`;
}

function NewOrder({ onPlace }) {
  const [order, setOrder] = useState({ customer: "", item: "" });
  const [state, setState] = useState({});
  const field = (name) => ({
    id: `new-${name}`,
    name,
    value: order[name],
    maxLength: 60,
    required: true,
    autoComplete: "off",
    onChange: ({ target }) => setOrder((former) => ({ ...former, [name]: target.value })),
  });

  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      await onPlace(order);
      setOrder({ customer: "", item: "" });
      setState({ done: `The order for ${order.customer} is placed.` });
    } catch (err) {
      setState({ problem: said(err) });
    }
  };
  return (
    <form className="card new" onSubmit={submit} aria-label="New order">
      <label htmlFor="new-customer">Customer<input placeholder="Marina Duarte" {...field("customer")} /></label>
      <label htmlFor="new-item">Item<input placeholder="Tide clock" {...field("item")} /></label>
      <button className="primary" disabled={state.busy}>Place order</button>
      <p className={state.problem ? "problem" : "soft"} role="status">{state.problem ?? state.done}</p>
    </form>
  );
}
