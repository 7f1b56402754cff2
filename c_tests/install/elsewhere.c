/* A shared library with a send_full of its own, which has nothing to do with ours. */
int send_full(int number);
int call_the_other_send_full(int number);

int send_full(int number)
{
    return number + 1;
}

int call_the_other_send_full(int number)
{
    return send_full(number);
}
